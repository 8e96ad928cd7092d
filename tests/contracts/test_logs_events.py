"""Log events through the official client: read, searched, written, followed."""

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError
from tests.contracts.aws_support import refusal
from tests.contracts.logs_support import ARN, GROUP, STREAM, Server, serving
from tests.support.aws_tool import logs_tool

from torpor.contracts.cloudwatch_logs import limits

NO_GROUP = ("ResourceNotFoundException", "The specified log group does not exist.")
NO_STREAM = ("ResourceNotFoundException", "The specified log stream does not exist.")


class Clock:
    """Time as the test sets it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(limits, "TAIL_EVERY", 0.05)
    with serving(tmp_path, keys={}, clock=clock) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Any:
    return server.client()


def refused(call: Callable[..., Any], **values: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**values)
    return refusal(error.value)


def texts(answer: Any) -> list[str]:
    return [event["message"] for event in answer["events"]]


def test_a_stream_is_read_from_its_end_or_its_head_and_on_from_the_tokens(server: Server, client: Any) -> None:
    for number in range(10):
        server.log(str(number), at=100.0 + number)
        server.log("other", stream="other", at=100.0 + number)

    def read(**values: Any) -> Any:
        return client.get_log_events(logGroupName=GROUP, logStreamName=STREAM, **values)

    assert texts(read()) == [str(number) for number in range(10)]
    newest = read(limit=3)
    assert texts(newest) == ["7", "8", "9"]
    older = read(limit=3, nextToken=newest["nextBackwardToken"])
    assert texts(older) == ["4", "5", "6"]
    assert texts(read(limit=3, nextToken=older["nextForwardToken"], startFromHead=True)) == ["7", "8", "9"]
    head = read(limit=4, startFromHead=True)
    assert texts(head) == ["0", "1", "2", "3"]
    onward = read(limit=40, startFromHead=True, nextToken=head["nextForwardToken"])
    assert texts(onward) == ["4", "5", "6", "7", "8", "9"]
    assert texts(read(startTime=103_000, endTime=106_000)) == ["3", "4", "5"]
    event = read(limit=1)["events"][0]
    assert event == {"timestamp": 109_000, "message": "9", "ingestionTime": 109_000}


def test_the_same_token_comes_again_where_a_stream_ends_until_something_is_new(server: Server, client: Any) -> None:
    server.log("one", "two", at=5.0)

    def read(token: str) -> Any:
        return client.get_log_events(logGroupName=GROUP, logStreamName=STREAM, nextToken=token, startFromHead=True)

    first = client.get_log_events(logGroupName=GROUP, logStreamName=STREAM)
    forward, backward = first["nextForwardToken"], first["nextBackwardToken"]
    assert (texts(read(forward)), read(forward)["nextForwardToken"]) == ([], forward)
    assert (texts(read(backward)), read(backward)["nextBackwardToken"]) == ([], backward)
    assert texts(read(read(forward)["nextBackwardToken"])) == ["one", "two"]
    assert texts(read(read(backward)["nextForwardToken"])) == ["one", "two"]
    server.log("three", at=6.0)
    assert texts(read(forward)) == ["three"]
    client.create_log_stream(logGroupName=GROUP, logStreamName="empty")
    nothing = client.get_log_events(logGroupName=GROUP, logStreamName="empty")
    server.log("first", stream="empty", at=7.0)
    onward = client.get_log_events(
        logGroupName=GROUP, logStreamName="empty", nextToken=nothing["nextForwardToken"], startFromHead=True
    )
    assert texts(onward) == ["first"]


def test_a_search_goes_over_streams_in_the_order_of_time(server: Server, client: Any) -> None:
    for number in range(12):
        server.log(f"{number} {'ERROR' if number % 3 else 'INFO'}", stream=f"s{number % 2}/{number}", at=50 - number)

    def search(**values: Any) -> list[str]:
        pages = client.get_paginator("filter_log_events").paginate(logGroupName=GROUP, **values)
        return [event["message"].split()[0] for page in pages for event in page["events"]]

    everything = [str(number) for number in reversed(range(12))]
    for size in (1, 5, 100):
        page = {"PaginationConfig": {"PageSize": size}}
        assert search(**page) == everything
        assert search(startFromHead=False, **page) == everything[::-1]
        assert search(filterPattern="INFO", **page) == ["9", "6", "3", "0"]
        assert search(logStreamNamePrefix="s1/", **page) == ["11", "9", "7", "5", "3", "1"]
        assert search(logStreamNames=["s0/4", "s1/3"], **page) == ["4", "3"]
        assert search(startTime=45_000, endTime=47_000, **page) == ["5", "4", "3"]
    answer = client.filter_log_events(logGroupIdentifier=ARN, limit=2)
    assert answer["searchedLogStreams"] == [] and "nextToken" in answer
    ids = [event["eventId"] for event in client.filter_log_events(logGroupName=GROUP)["events"]]
    assert ids == sorted(ids) and len(set(ids)) == 12 and {len(each) for each in ids} == {56}


def test_json_messages_are_searched_by_their_fields(server: Server, client: Any) -> None:
    server.log(json.dumps({"level": "ERROR", "n": 1}), json.dumps({"level": "INFO", "n": 2}), "ERROR")
    found = client.filter_log_events(logGroupName=GROUP, filterPattern='{ $.level = "ERROR" || $.n > 1 }')
    assert [json.loads(text)["n"] for text in texts(found)] == [1, 2]


def test_events_beyond_memory_are_found_through_pages_that_may_be_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torpor.telemetry.log_group.MEMORY_EVENTS", 10)
    monkeypatch.setattr("torpor.telemetry.search.BUDGET", 5_000)
    with serving(tmp_path, keys={}, size=1 << 20) as server:
        for number in range(400):
            server.log(f"needle {number}" if number == 7 else "x" * 500, at=1000.0 + number)
            server.run(server.journal.flush)
        client = server.client()
        pages = list(client.get_paginator("filter_log_events").paginate(logGroupName=GROUP, filterPattern='"needle 7"'))
        assert [event["message"] for page in pages for event in page["events"]] == ["needle 7"]
        assert len(pages) > 5
        token, found = {}, []
        for _ in range(500):
            answer = client.get_log_events(logGroupName=GROUP, logStreamName=STREAM, limit=50, **token)
            found = texts(answer) + found
            if token.get("nextToken") == answer["nextBackwardToken"]:
                break
            token = {"nextToken": answer["nextBackwardToken"]}
        assert len(found) == 400 and found[7] == "needle 7"


def test_who_asks_again_and_again_sees_each_event_once(server: Server, client: Any, clock: Clock) -> None:
    """As `aws logs tail --follow` of the tool's second version does it, which is not to be had here."""
    seen: dict[str, str] = {}
    start = 0
    for round_ in range(3):
        for part in range(2):
            server.log(f"{round_}.{part}", at=clock.now + round_, stream=f"s{part}")
        token: dict[str, str] = {}
        while True:
            answer = client.filter_log_events(logGroupName=GROUP, interleaved=True, startTime=start, limit=1, **token)
            for event in answer["events"]:
                start = max(start, event["timestamp"])
                seen.setdefault(event["eventId"], event["message"])
            if "nextToken" not in answer:
                break
            token = {"nextToken": answer["nextToken"]}
    assert list(seen.values()) == ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"]


def test_events_are_written_and_what_is_too_old_or_too_new_is_told(server: Server, client: Any, clock: Clock) -> None:
    now, day = int(clock.now * 1000), 24 * 3600 * 1000

    def put(*events: tuple[int, str], stream: str = "mine") -> Any:
        entries = [{"timestamp": at, "message": message} for at, message in events]
        return client.put_log_events(logGroupName="own", logStreamName=stream, logEvents=entries)

    entry = {"logEvents": [{"timestamp": now, "message": "x"}], "logStreamName": "mine"}
    assert refused(client.put_log_events, logGroupName="own", **entry) == NO_GROUP
    client.create_log_group(logGroupName="own")
    assert refused(client.put_log_events, logGroupName="own", **entry) == NO_STREAM
    client.create_log_stream(logGroupName="own", logStreamName="mine")
    assert "rejectedLogEventsInfo" not in put((now - 3, "three"), (now - 1, "one"))
    assert "rejectedLogEventsInfo" not in put((now - 2, "two"))
    told = put((now - 15 * day, "old"), (now, "zero"), (now + day, "new"))
    assert told["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2}
    answer = client.get_log_events(logGroupName="own", logStreamName="mine")
    assert texts(answer) == ["three", "two", "one", "zero"]
    assert {event["ingestionTime"] for event in answer["events"]} == {now}
    client.put_retention_policy(logGroupName="own", retentionInDays=1)
    assert put((now - 2 * day, "gone"))["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}
    for wrong in (
        [(now, "later"), (now - 1, "earlier")],
        [(now - 25 * 3600 * 1000, "a"), (now, "b")],
        [(now, "x" * 600_000), (now, "y" * 600_000)],
    ):
        client.delete_retention_policy(logGroupName="own")
        with pytest.raises(client.exceptions.InvalidParameterException):
            put(*wrong)
    assert len(texts(client.get_log_events(logGroupName="own", logStreamName="mine"))) == 4


def test_a_message_of_any_text_comes_back_as_it_was(server: Server, client: Any, clock: Clock) -> None:
    client.create_log_group(logGroupName="own")
    client.create_log_stream(logGroupName="own", logStreamName="s")
    messages = ["tab\tline\nnext\r\n", "\u00e4\u20ac\U0001f600", '{"a": "\\u0000"}', "\x00\x1f", "x" * 200_000]
    entries = [{"timestamp": int(clock.now * 1000), "message": message} for message in messages]
    client.put_log_events(logGroupName="own", logStreamName="s", logEvents=entries)
    server.run(server.journal.flush)
    assert texts(client.get_log_events(logGroupName="own", logStreamName="s", startFromHead=True)) == messages


def test_what_is_not_there_or_no_token_is_refused(server: Server, client: Any) -> None:
    server.log("one")
    assert refused(client.filter_log_events, logGroupName="none") == NO_GROUP
    assert refused(client.get_log_events, logGroupName="none", logStreamName="s") == NO_GROUP
    assert refused(client.get_log_events, logGroupName=GROUP, logStreamName="none") == NO_STREAM
    assert refused(client.filter_log_events, logGroupName=GROUP, logStreamNames=["none"]) == NO_STREAM
    both = {"logStreamNames": [STREAM], "logStreamNamePrefix": "2"}
    assert refused(client.filter_log_events, logGroupName=GROUP, **both)[0] == "InvalidParameterException"
    for token in ("x", "f/1", "f/" + "9" * 41, "g/" + "0" * 40, "f/" + "\u0661" * 40):
        answer = refused(client.filter_log_events, logGroupName=GROUP, nextToken=token)
        assert answer == ("InvalidParameterException", "The specified nextToken is invalid.")
        same = refused(client.get_log_events, logGroupName=GROUP, logStreamName=STREAM, nextToken=token)
        assert same == answer
    for token in ("x", "WzFd", "bnVsbA==", "W1tdLCJhIl0="):
        assert refused(client.describe_log_streams, logGroupName=GROUP, nextToken=token) == answer
    malformed = refused(client.filter_log_events, logGroupName=GROUP, filterPattern="{ $.a = ")
    assert malformed[0] == "InvalidParameterException" and malformed[1].startswith("Invalid filter pattern: ")


def test_the_command_line_tool_searches(server: Server) -> None:
    server.log("an INFO", "an ERROR")
    found = logs_tool(
        server.url, "filter-log-events", "--log-group-name", GROUP, "--filter-pattern", "ERROR",
        "--query", "events[].message", "--output", "text",
    )  # fmt: skip
    assert found.communicate(timeout=30) == ("an ERROR\n", "")


class Tailing:
    """A live tail that is read in a thread."""

    def __init__(self, client: Any, **values: Any) -> None:
        self.stream = client.start_live_tail(logGroupIdentifiers=[ARN], **values)["responseStream"]
        self.events: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self.stream:
                self.events.put(event)
        except Exception as error:
            self.events.put(error)
        self.events.put(None)

    def next(self, kind: str) -> Any:
        """The next event, which is of this kind."""
        return self.events.get(timeout=10)[kind]

    def results(self) -> list[Any]:
        """Of the next update that has any."""
        while not (found := self.next("sessionUpdate")["sessionResults"]):
            pass
        return found

    def end(self) -> list[Any]:
        """Everything until the end."""
        found = []
        while (event := self.events.get(timeout=10)) is not None:
            found.append(event)
        self._thread.join()
        return found

    def close(self) -> None:
        self.stream._raw_stream._fp.fp.raw._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def test_a_live_tail_shows_what_is_logged_from_then_on(server: Server, client: Any) -> None:
    server.log("before")
    tail = Tailing(client, logEventFilterPattern="-noise", logStreamNamePrefixes=["2024/"])
    begun = tail.next("sessionStart")
    assert begun["logGroupIdentifiers"] == [ARN] and begun["logEventFilterPattern"] == "-noise"
    assert begun["sessionId"] and begun["requestId"]
    update = tail.next("sessionUpdate")
    assert update == {"sessionMetadata": {"sampled": False}, "sessionResults": []}
    server.log("noise", "wanted", at=77.0)
    server.log("wanted elsewhere", stream="2023/other")
    assert tail.results() == [
        {
            "logStreamName": STREAM,
            "logGroupIdentifier": f"000000000000:{GROUP}",
            "message": "wanted",
            "timestamp": 77_000,
            "ingestionTime": 77_000,
        }
    ]
    client.delete_log_group(logGroupName=GROUP)
    server.log("after the group was made anew")
    assert [event["message"] for event in tail.results()] == ["after the group was made anew"]
    tail.close()


def test_a_live_tail_of_many_events_shows_a_sample(server: Server, client: Any) -> None:
    server.log("before")
    tail = Tailing(client)
    tail.next("sessionStart")
    server.log(*map(str, range(1200)))
    update = tail.next("sessionUpdate")
    while not update["sessionResults"]:
        update = tail.next("sessionUpdate")
    shown = [int(event["message"]) for event in update["sessionResults"]]
    assert update["sessionMetadata"]["sampled"] is True
    assert len(shown) == 500 and shown == sorted(shown) and shown[-1] > 1100
    tail.close()


def test_a_live_tail_ends_after_three_hours(server: Server, client: Any, clock: Clock) -> None:
    server.log("before")
    tail = Tailing(client)
    tail.next("sessionStart")
    clock.now += 3 * 3600
    ending = tail.end()[-1]
    assert isinstance(ending, EventStreamError)
    assert ending.response["Error"]["Code"] == "SessionTimeoutException"


def test_sessions_are_bounded_and_make_room_when_their_clients_go(
    server: Server, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TAIL_SESSIONS", 1)
    server.log("before")
    tail = Tailing(client)
    tail.next("sessionStart")
    assert refused(client.start_live_tail, logGroupIdentifiers=[ARN])[0] == "LimitExceededException"
    tail.close()
    deadline = time.monotonic() + 5
    while True:
        try:
            another = Tailing(client)
            break
        except ClientError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    another.next("sessionStart")
    another.close()


def test_a_live_tail_of_what_is_not_there_is_refused_before_it_begins(server: Server, client: Any) -> None:
    assert refused(client.start_live_tail, logGroupIdentifiers=[ARN]) == NO_GROUP
    server.log("x")
    for values in (
        {"logGroupIdentifiers": [ARN + ":*"]},
        {"logGroupIdentifiers": [ARN], "logEventFilterPattern": "a-b"},
        {"logGroupIdentifiers": [ARN], "logStreamNames": ["a"], "logStreamNamePrefixes": ["a"]},
        {"logGroupIdentifiers": [ARN, ARN + "2"], "logStreamNames": ["a"]},
    ):
        assert refused(client.start_live_tail, **values)[0] == "InvalidParameterException"


def test_the_command_line_tool_follows_new_lines_until_it_is_ended(server: Server) -> None:
    server.log("before")
    process = logs_tool(server.url, "start-live-tail", "--log-group-identifiers", ARN)
    assert process.stdout is not None and process.stderr is not None
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout or ()])
    reader.start()
    try:
        deadline = time.monotonic() + 30
        number = 0
        while lines.empty():
            assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
            server.log(f"line {number}")
            number += 1
            time.sleep(0.1)
        assert lines.get(timeout=5).startswith("line ")
    finally:
        process.terminate()
        process.wait(10)
        reader.join()
        process.stdout.close()
        process.stderr.close()
