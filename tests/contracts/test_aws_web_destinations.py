"""Web addresses as destinations: signed requests that are sent until they arrive, or are refused for good."""

import base64
import gc
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.async_support import FAILED, WEB_KEY, EventBench, event_bench, eventually, step_words
from tests.support.emulator import free_port

from torpor.model.event import EventState
from torpor.model.invocation import Outcome, OutcomeStatus
from torpor.store.ports import EventRow

GOOD = Outcome(status=OutcomeStatus.SUCCESS, payload='{"sum":"ü"}'.encode(), version="$LATEST")
TOLERANCE = 300.0
"""Seconds by which receivers let a time stamp differ."""


@dataclass(frozen=True)
class Received:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes
    status: int
    """What it was answered with."""


@dataclass
class Receiver:
    """A web server that answers what `answer` says, by the request's number and path."""

    url: str = ""
    answer: Callable[[int, str], int] = lambda _number, _path: 204
    location: str = ""
    """Told with answers in the three hundreds."""
    requests: list[Received] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def accepted(self, number: int = 1) -> list[Received]:
        """The requests that were answered well, once there are so many."""

        def found() -> list[Received] | None:
            good = [request for request in self.requests if request.status < 300]
            return good if len(good) >= number else None

        return eventually(found, lambda: self.requests, within=20)


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver on this machine."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status = receiver.answer(next(receiver.numbers), self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append(Received(self.command, self.path, headers, body, status))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", receiver.location)
            text = b"" if status == 204 else b"because"
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventBench]:
    with event_bench(tmp_path_factory.mktemp("events")) as bench:
        yield bench


@pytest.fixture
def bench(running: EventBench) -> Iterator[EventBench]:
    """Every event of the test is through at its end."""
    running.clear()
    yield running
    running.rests()


def to(address: str, **settings: Any) -> dict[str, Any]:
    """Event settings with this address for both ends."""
    both = {"OnSuccess": {"Destination": address}, "OnFailure": {"Destination": address}}
    return {"DestinationConfig": both, **settings}


def verified(request: Received, key: bytes = WEB_KEY) -> Any:
    """The record in a request, once its signature is found to be right, as a receiver would check it."""
    identity, moment = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    assert re.fullmatch(r"\d+", moment)
    assert abs(time.time() - int(moment)) < TOLERANCE
    signed = f"{identity}.{moment}.".encode() + request.body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    given = [each.split(",", 1) for each in request.headers["webhook-signature"].split(" ")]
    assert any(version == "v1" and hmac.compare_digest(wanted, text) for version, text in given)
    return json.loads(request.body)


def undelivered(row: EventRow) -> str:
    """What the history of a dead event says at its end."""
    assert (row.state, row.progress.steps[-1].what) == (EventState.DEAD, "undelivered"), row.progress.steps
    return row.progress.steps[-1].detail


# -- one request ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "condition"), [(GOOD, "Success"), (FAILED, "RetriesExhausted")])
def test_a_web_address_gets_the_record_in_a_signed_request(
    bench: EventBench, receiver: Receiver, outcome: Outcome, condition: str
) -> None:
    name = bench.function(outcome, settings=to(f"{receiver.url}/results?of=f"))
    identity = bench.send(name, b'{"a" : 1}')
    (request,) = receiver.accepted()

    assert (request.method, request.path) == ("POST", "/results?of=f")
    assert request.headers["content-type"] == "application/json"
    record = verified(request)
    assert record["requestContext"]["requestId"] == identity
    assert record["requestContext"]["condition"] == condition
    assert (record["requestPayload"], record["responsePayload"]) == ({"a": 1}, json.loads(outcome.payload))
    row = bench.ended(identity)
    assert row.progress.steps[-1].detail == f"destination {receiver.url}/results?of=f"
    assert step_words(row)[-2:] == ["ended", "delivered"]


def test_a_signature_fits_no_other_key_body_time_or_name(bench: EventBench, receiver: Receiver) -> None:
    bench.send(bench.function(GOOD, settings=to(receiver.url)))
    (request,) = receiver.accepted()
    verified(request)
    with pytest.raises(AssertionError):
        verified(request, key=b"x" * 32)
    forged = [
        Received(request.method, request.path, request.headers, request.body + b" ", 200),
        *(
            Received(request.method, request.path, {**request.headers, name: value}, request.body, 200)
            for name, value in (
                ("webhook-id", "other"),
                ("webhook-timestamp", str(int(request.headers["webhook-timestamp"]) - 1)),
            )
        ),
    ]
    for each in forged:
        with pytest.raises(AssertionError):
            verified(each)


def test_a_result_has_the_same_name_whenever_it_is_sent_and_a_time_of_its_own(
    bench: EventBench, receiver: Receiver
) -> None:
    receiver.answer = lambda number, _: 500 if number < 2 else 200
    identities = {bench.send(bench.function(GOOD, settings=to(receiver.url)))}
    receiver.accepted()
    bench.rests()
    assert len(receiver.requests) == 3
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert {verified(request)["requestContext"]["requestId"] for request in receiver.requests} == identities


def test_results_of_different_events_have_different_names(bench: EventBench, receiver: Receiver) -> None:
    name = bench.function(GOOD, settings=to(receiver.url))
    for _ in range(10):
        bench.send(name)
    assert len({request.headers["webhook-id"] for request in receiver.accepted(10)}) == 10


def test_a_large_record_arrives_whole(bench: EventBench, receiver: Receiver) -> None:
    payload = b'"' + b"x" * (1024 * 1024 - 2) + b'"'
    bench.send(bench.function(GOOD, settings=to(receiver.url)), payload)
    (request,) = receiver.accepted()
    assert len(verified(request)["requestPayload"]) == len(payload) - 2


# -- trouble ----------------------------------------------------------------------------------------------------------


def test_everything_arrives_at_a_receiver_that_fails_half_of_the_time(bench: EventBench, receiver: Receiver) -> None:
    receiver.answer = lambda number, _: 500 if number % 2 else 200
    name = bench.function(GOOD, settings=to(receiver.url))
    sent = [bench.send(name) for _ in range(60)]

    arrived = [verified(request)["requestContext"]["requestId"] for request in receiver.accepted(60)]
    assert sorted(arrived) == sorted(sent)
    assert {bench.ended(identity).state for identity in sent} == {EventState.SUCCEEDED}
    assert bench.store.counters()[name, "delivered"] == 60


def test_an_answer_that_may_be_another_one_later_is_tried_again(bench: EventBench, receiver: Receiver) -> None:
    seen: set[str] = set()

    def first_a_failure(_number: int, path: str) -> int:
        if path in seen:
            return 202
        seen.add(path)
        return int(path.removeprefix("/"))

    receiver.answer = first_a_failure
    statuses = (408, 425, 429, 500, 502, 503, 504)
    sent = [bench.send(bench.function(GOOD, settings=to(f"{receiver.url}/{status}"))) for status in statuses]
    receiver.accepted(len(statuses))
    assert {bench.ended(identity).state for identity in sent} == {EventState.SUCCEEDED}
    for status in statuses:
        answers = [request.status for request in receiver.requests if request.path == f"/{status}"]
        assert answers == [status, 202]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422, 451])
def test_a_refusal_is_final(bench: EventBench, receiver: Receiver, status: int) -> None:
    receiver.answer = lambda *_: status
    row = bench.ended(bench.send(bench.function(GOOD, settings=to(receiver.url))))
    assert undelivered(row) == f"destination {receiver.url}: {receiver.url} answered {status}: because"
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(bench: EventBench, receiver: Receiver, status: int) -> None:
    with receiving() as other:
        receiver.answer = lambda number, _: status if number == 0 else 200
        receiver.location = f"{other.url}/elsewhere"
        row = bench.ended(bench.send(bench.function(GOOD, settings=to(receiver.url))))
        assert f"answered {status}" in undelivered(row)
        assert (len(receiver.requests), other.requests) == (1, [])


def test_a_receiver_that_is_down_gets_everything_once_it_is_up(bench: EventBench) -> None:
    port = free_port()
    name = bench.function(GOOD, settings=to(f"http://127.0.0.1:{port}/late"))
    sent = [bench.send(name) for _ in range(5)]
    eventually(
        lambda: any(owed.attempts for row in bench.events_of(name) for owed in row.progress.owed),
        lambda: bench.events_of(name),
    )
    with receiving(port) as late:
        arrived = [verified(request)["requestContext"]["requestId"] for request in late.accepted(5)]
        assert sorted(arrived) == sorted(sent)
        assert {bench.ended(identity).state for identity in sent} == {EventState.SUCCEEDED}


def test_a_receiver_that_does_not_answer_holds_up_neither_functions_nor_other_receivers(
    bench: EventBench, receiver: Receiver
) -> None:
    over = threading.Event()

    def wait(_number: int, path: str) -> int:
        if path == "/slow":
            over.wait(30)
        return 200

    receiver.answer = wait
    slow = bench.function(GOOD, settings=to(f"{receiver.url}/slow"))
    quick = bench.function(GOOD, settings=to(f"{receiver.url}/quick"))
    try:
        for _ in range(50):
            bench.send(slow)
        for _ in range(20):
            bench.send(quick)
        assert {request.path for request in receiver.accepted(20)} == {"/quick"}
        eventually(lambda: len(bench.runs) == 70, lambda: len(bench.runs))
    finally:
        over.set()
    assert len(receiver.accepted(70)) == 70


def test_an_address_that_nobody_answers_is_tried_again(tmp_path: Path) -> None:
    with event_bench(tmp_path) as bench:
        identity = bench.send(bench.function(GOOD, settings=to(f"http://127.0.0.1:{free_port()}/")))
        eventually(lambda: _attempts(bench, identity) >= 2, lambda: bench.row(identity))


# The client library leaves sockets with which it could not agree on encryption to the collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_a_receiver_without_the_encryption_that_its_address_promises_gets_nothing(
    tmp_path: Path, receiver: Receiver
) -> None:
    with event_bench(tmp_path) as bench:
        identity = bench.send(bench.function(GOOD, settings=to(receiver.url.replace("http://", "https://"))))
        eventually(lambda: _attempts(bench, identity) >= 2, lambda: bench.row(identity))
        assert receiver.requests == []
    eventually(lambda: "torpor-target" not in [each.name for each in threading.enumerate()], threading.enumerate)
    gc.collect()


def _attempts(bench: EventBench, identity: str) -> int:
    row = bench.row(identity)
    return max((owed.attempts for owed in row.progress.owed), default=0) if row is not None else 0
