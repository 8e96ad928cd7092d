"""Functions that call themselves in a circle, told by the trace header: stopped unless they may."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.async_support import ARN, FAILED, NOTHING, EventBench, event_bench, eventually, to_file

from torpor.model.event import EventState
from torpor.model.invocation import Invocation, Outcome

MOST = 16
ROOT = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


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


class Chain:
    """Calls each of which carries the trace that the function called before was given, as an SDK in it would."""

    def __init__(self, bench: EventBench, trace: str = ROOT) -> None:
        self.trace = trace
        self._bench = bench
        self._client = bench.server.client()
        for operation in ("Invoke", "InvokeWithResponseStream"):
            self._client.meta.events.register(f"before-send.lambda.{operation}", self._add)

    def _add(self, request: Any, **_: Any) -> None:
        request.headers["X-Amzn-Trace-Id"] = self.trace

    def call(self, name: str) -> None:
        """Wait for its answer."""
        self._client.invoke(FunctionName=name)["Payload"].read()
        self.trace = self._bench.runs[-1].trace

    def stream(self, name: str) -> None:
        """As `call`, with an answer that is a stream."""
        list(self._client.invoke_with_response_stream(FunctionName=name)["EventStream"])
        self.trace = self._bench.runs[-1].trace

    def send(self, name: str) -> str:
        """Once the function has run or will not; the request id."""
        reply = self._client.invoke(FunctionName=name, InvocationType="Event")
        identity: str = reply["ResponseMetadata"]["RequestId"]
        self._bench.ended(identity)
        self.trace = self._bench.runs[-1].trace
        return identity


def lineage(trace: str) -> dict[str, int]:
    """How often each function is counted in a trace header."""
    part = next(part for part in trace.split(";") if part.startswith("Lineage="))
    assert re.fullmatch(r"Lineage=1:[0-9a-f]{8}:\d+(\|[0-9a-f]{8}:\d+)*", part), part
    return {mark: int(number) for mark, number in re.findall(r"([0-9a-f]{8}):(\d+)", part)}


def test_a_function_in_a_circle_is_counted_and_then_refused(bench: EventBench) -> None:
    name, chain = bench.function(), Chain(bench)
    for number in range(1, MOST + 1):
        chain.call(name)
        assert chain.trace.startswith(ROOT + ";")
        assert list(lineage(chain.trace).values()) == [number]
    with pytest.raises(bench.client.exceptions.RecursiveInvocationException) as error:
        chain.call(name)

    response = error.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert f"{ARN}{name}" in response["Message"]
    assert response["Type"] == "User"
    assert len(bench.runs) == MOST


def test_a_streamed_call_in_a_circle_is_refused_too(bench: EventBench) -> None:
    name, chain = bench.function(), Chain(bench)
    for _ in range(MOST):
        chain.stream(name)
    with pytest.raises(ClientError) as error:
        chain.stream(name)
    assert error.value.response["Error"]["Code"] == "RecursiveInvocationException"


def test_a_version_and_an_alias_count_as_their_function(bench: EventBench) -> None:
    name, chain = bench.function(Publish=True), Chain(bench)
    bench.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    for number in range(MOST):
        chain.call(f"{name}:{('$LATEST', '1', 'live')[number % 3]}")
    with pytest.raises(bench.client.exceptions.RecursiveInvocationException):
        chain.call(f"{name}:live")


def test_each_function_of_a_circle_is_counted_by_itself(bench: EventBench) -> None:
    one, two, other = bench.function(), bench.function(), bench.function()
    chain = Chain(bench)
    for _ in range(MOST):
        chain.call(one)
        chain.call(two)
    assert sorted(lineage(chain.trace).values()) == [MOST, MOST]
    for name in (one, two):
        with pytest.raises(bench.client.exceptions.RecursiveInvocationException):
            chain.call(name)
    chain.call(other)


def test_the_older_form_of_the_count_is_understood(bench: EventBench) -> None:
    name, chain = bench.function(), Chain(bench)
    chain.call(name)
    (mark,) = lineage(chain.trace)
    chain.trace = f"{ROOT};Lineage={mark}:{MOST - 1}|0000abcd:3"
    chain.call(name)
    assert lineage(chain.trace) == {mark: MOST, "0000abcd": 3}
    with pytest.raises(bench.client.exceptions.RecursiveInvocationException):
        chain.call(name)


@pytest.mark.parametrize("header", ["Lineage=", "Lineage=1:", "Lineage=a", "Lineage=::|", "Lineage=1:**:99"])
def test_a_count_that_nobody_can_read_refuses_nothing(bench: EventBench, header: str) -> None:
    name, chain = bench.function(), Chain(bench, f"{ROOT};{header}")
    chain.call(name)
    assert list(lineage(chain.trace).values()) == [1]


def test_calls_without_a_trace_are_no_circle(bench: EventBench) -> None:
    name = bench.function()
    for _ in range(MOST + 4):
        bench.client.invoke(FunctionName=name)
    assert len(bench.runs) == MOST + 4


def test_a_function_whose_circle_is_allowed_goes_on(bench: EventBench) -> None:
    name, chain = bench.function(), Chain(bench)
    bench.client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")
    for _ in range(MOST + 4):
        chain.call(name)
    assert list(lineage(chain.trace).values()) == [MOST + 4]
    bench.client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Terminate")
    with pytest.raises(bench.client.exceptions.RecursiveInvocationException):
        chain.call(name)


# -- events -----------------------------------------------------------------------------------------------------------


def test_an_event_in_a_circle_is_taken_and_goes_to_the_destination_for_failures(bench: EventBench) -> None:
    name, chain = bench.function(settings=to_file("circle", on=("OnFailure",))), Chain(bench)
    for _ in range(MOST + 4):
        identity = chain.send(name)
        if bench.attempts(identity) == 0:
            break

    assert len(bench.runs) in (MOST - 1, MOST)
    (record,) = bench.records("circle")
    assert record["requestContext"] == {
        "requestId": identity,
        "functionArn": f"{ARN}{name}:$LATEST",
        "condition": "RecursiveInvocation",
        "approximateInvokeCount": 0,
    }
    assert not {"responseContext", "responsePayload"} & record.keys()
    assert bench.ended(identity).state is EventState.FAILED


def test_attempts_of_one_event_are_no_circle(bench: EventBench) -> None:
    name, chain = bench.function(FAILED), Chain(bench)
    identity = chain.send(name)
    assert bench.attempts(identity) == 3
    assert {tuple(lineage(run.trace).values()) for run in bench.runs} == {(1,)}


def circle(bench: EventBench, file: str) -> tuple[str, str]:
    """Two functions that are each other's destination; what is cut off goes to a file."""
    one, two = bench.function(), bench.function()
    for name, other in ((one, two), (two, one)):
        destinations = {"OnSuccess": {"Destination": ARN + other}, "OnFailure": {"Destination": f"file:{file}"}}
        bench.client.put_function_event_invoke_config(
            FunctionName=name, MaximumRetryAttempts=0, DestinationConfig=destinations
        )
    return one, two


def runs_of(bench: EventBench, name: str) -> int:
    return sum(f":{name}" in run.resource for run in bench.runs)


def test_functions_that_are_each_other_s_destination_are_cut_off(bench: EventBench) -> None:
    one, two = circle(bench, "cut")
    bench.send(one)
    (record,) = bench.records("cut")

    assert record["requestContext"]["condition"] == "RecursiveInvocation"
    assert {runs_of(bench, one), runs_of(bench, two)} <= {MOST - 1, MOST}
    assert len(bench.runs) in (2 * MOST - 1, 2 * MOST)
    bench.rests()
    assert len(bench.records("cut")) == 1


def test_a_header_that_counts_nothing_hides_no_circle(bench: EventBench) -> None:
    one, _ = circle(bench, "hidden")

    def add(request: Any, **_: Any) -> None:
        request.headers["X-Amzn-Trace-Id"] = "garbage"

    bench.client.meta.events.register("before-send.lambda.Invoke", add)
    bench.send(one)
    bench.client.meta.events.unregister("before-send.lambda.Invoke", add)
    (record,) = bench.records("hidden")
    assert record["requestContext"]["condition"] == "RecursiveInvocation"


def test_events_that_begin_anew_are_cut_off_each_for_itself(bench: EventBench) -> None:
    one, _ = circle(bench, "three")
    for _ in range(3):
        bench.send(one)
    bench.rests()
    assert len(bench.records("three", 3)) == 3
    assert len(bench.runs) in (3 * (2 * MOST - 1), 3 * 2 * MOST)


def test_functions_whose_circle_is_allowed_go_on_until_they_end_it_themselves(bench: EventBench) -> None:
    one, two = circle(bench, "allowed")
    for name in (one, two):
        bench.client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")

    def ends_it(_: Invocation) -> Outcome:
        return FAILED if runs_of(bench, one) == 3 * MOST else NOTHING

    bench.answers[one] = ends_it
    bench.send(one)
    (record,) = bench.records("allowed")
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert runs_of(bench, one) == runs_of(bench, two) + 1 == 3 * MOST


def test_a_circle_ends_at_the_first_of_its_functions_that_does_not_allow_it(bench: EventBench) -> None:
    one, two = circle(bench, "first")
    bench.client.put_function_recursion_config(FunctionName=one, RecursiveLoop="Allow")
    bench.send(one)
    (record,) = bench.records("first")
    assert record["requestContext"]["functionArn"] == f"{ARN}{two}:$LATEST"
    assert record["requestContext"]["condition"] == "RecursiveInvocation"


def test_what_is_cut_off_goes_round_no_more_by_its_failures(bench: EventBench) -> None:
    one, two = bench.function(), bench.function()
    for name, other in ((one, two), (two, one)):
        both = {"OnSuccess": {"Destination": ARN + other}, "OnFailure": {"Destination": ARN + other}}
        bench.client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=both)
    bench.send(one)

    def hops() -> int:
        return len(bench.events_of(one)) + len(bench.events_of(two))

    def is_over() -> bool:
        rests = all(row.state.is_ended for name in (one, two) for row in bench.events_of(name))
        return rests and len(bench.runs) >= 2 * MOST - 1

    eventually(lambda: is_over() or hops() > 4 * MOST, lambda: bench.runs)
    found = hops()
    for name in (one, two):
        bench.client.delete_function_event_invoke_config(FunctionName=name)
    assert found <= 3 * MOST
