"""Trace headers, sampling, and the documents of failures that do not fit."""

import json
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.segments import segments
from torpor.contracts.lambda_.tracing import Sampling, TraceHeader, read_trace
from torpor.model.failure import Answer
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, OutcomeStatus
from torpor.model.records import InvocationEnded

ROOT, PARENT = "1-5f35ae12-0c0fec141ab77a00bc047aa2", "2be948a625588e32"
DATAGRAM = 64 * 1024


def _function_segment(answer: Answer) -> dict[str, Any]:
    ended = InvocationEnded(at=2.0, id="one", status=OutcomeStatus.SUCCESS, duration=1.0, limit=3.0, reported=answer)
    version = FunctionVersion(
        function="f", version="$LATEST", resource="arn:f", revision="r", contract="lambda", runtime="provided.al2023",
        handler="h", code=CodeRef(digest="d", packed_bytes=1, unpacked_bytes=1),
    )  # fmt: skip
    header = f"Root={ROOT};Parent={PARENT};Sampled=1"
    invocation = Invocation(id="one", payload=b"", resource="arn:f", trace=header, upstream_trace=header)
    numbers = count()
    documents = segments(version, invocation, [(ended, 1_700_000_000.0)], lambda: f"{next(numbers):016x}")
    encoded = [msgspec.json.encode(document) for document in documents]
    assert all(len(document) < DATAGRAM for document in encoded)
    made: dict[str, Any] = json.loads(encoded[1])
    return made


def test_header_is_read_and_written_back_in_the_order_of_its_parts() -> None:
    text = f"Root={ROOT};Parent={PARENT};Sampled=1;Lineage=1:abc:2"
    assert read_trace(text).text == text
    assert read_trace(f" Sampled=0 ; Root={ROOT}") == TraceHeader(root=ROOT, sampled=False)


@pytest.mark.parametrize("text", ["", ";;", "Root", "Root=1-2-3;Parent=xyz;Sampled=?", "\x00=;=="])
def test_malformed_parts_of_a_header_are_left_out(text: str) -> None:
    assert read_trace(text) == TraceHeader()


@given(st.text())
def test_no_header_whatever_keeps_an_invocation_from_a_trace_of_its_own(text: str) -> None:
    header, _ = Sampling().step(text, "f", 1_700_000_000.0)
    own = read_trace(header)
    assert own.root and own.parent and own.sampled is not None


def test_first_undecided_request_of_a_second_and_a_share_of_the_rest_are_recorded() -> None:
    chances = iter([0.9, 0.01, 0.9])
    sampling = Sampling(lambda: next(chances))
    undecided = f"Root={ROOT}"

    recorded = [bool(sampling.step(undecided, "f", 100.0 + at)[1]) for at in (0.0, 0.2, 0.4, 0.6, 1.0)]

    assert recorded == [True, False, True, False, True]
    assert sampling.step(undecided, "other", 101.1)[1] == f"Root={ROOT};Sampled=1"


def test_callers_decision_is_kept() -> None:
    sampling = Sampling(lambda: 0.0)
    assert sampling.step(f"Root={ROOT};Sampled=0", "f", 100.0)[1] == ""
    assert sampling.step(f"Root={ROOT};Parent={PARENT};Sampled=1", "f", 100.0)[1].endswith("Sampled=1")


def test_error_without_a_cause_is_told_by_its_body() -> None:
    cause = _function_segment(Answer(payload=b'{"errorType":"E","errorMessage":"m"}', error_type="Unhandled"))["cause"]
    assert [(item["type"], item["message"], item["stack"]) for item in cause["exceptions"]] == [("E", "m", [])]


@pytest.mark.parametrize("cause", ["{", "[]", '{"exceptions":1}', "[" * 5000, "\udc80"])
@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 5000, b"[1]"])
def test_malformed_accounts_of_an_error_leave_its_type(cause: str, body: bytes) -> None:
    told = _function_segment(Answer(payload=body, error_type="Runtime.Odd", cause=cause))["cause"]
    assert [item["type"] for item in told["exceptions"]] == ["Runtime.Odd"]


@pytest.mark.parametrize(
    "exceptions, paths",
    [
        ([{"type": "E", "message": "m" * 500_000, "stack": []}], []),
        ([{"type": "E", "message": "m", "stack": [{"path": "p" * 50, "line": 1, "label": "l"}] * 9000}], []),
        ([{"type": "E", "message": "é" * 9000, "stack": []}] * 200, ["q" * 90] * 900),
        ([{"type": "\x01" * 900_000, "message": "\x01" * 900_000, "stack": []}], ["p" * 900_000]),
    ],
)
def test_cause_too_large_for_a_datagram_is_cropped_until_it_fits(exceptions: list[Any], paths: list[str]) -> None:
    text = json.dumps({"working_directory": "/var/task" * 9000, "paths": paths, "exceptions": exceptions})
    cause = _function_segment(Answer(payload=b"{}", error_type="Unhandled", cause=text))["cause"]
    assert cause["exceptions"][0]["type"][0] == exceptions[0]["type"][0]
    assert len(json.dumps(cause)) <= limits.XRAY_CAUSE_MAX


def test_cause_beyond_all_measure_is_looked_at_in_part_only() -> None:
    text = '{"exceptions":[' + ",".join(["{}"] * 300_000) + "]}"
    cause = _function_segment(Answer(payload=b"{}", error_type="Unhandled", cause=text))["cause"]
    assert len(cause["exceptions"]) == 32


def test_cause_comes_as_header_fields_are_read_and_is_utf_8() -> None:
    text = json.dumps({"exceptions": [{"type": "Größe", "message": "→"}]}, ensure_ascii=False)
    told = Answer(payload=b"{}", error_type="Unhandled", cause=text.encode().decode("latin-1"))
    (exception,) = _function_segment(told)["cause"]["exceptions"]
    assert (exception["type"], exception["message"]) == ("Größe", "→")


def test_parent_of_a_trace_that_is_not_taken_over_is_not_either() -> None:
    _, before = Sampling().step(f"Root=garbage;Parent={PARENT};Sampled=1", "f", 100.0)
    assert PARENT not in before


def test_clock_that_is_set_back_does_not_stop_the_recording() -> None:
    sampling = Sampling(lambda: 0.9)
    assert [bool(sampling.step("", "f", at)[1]) for at in (5000.0, 100.0, 100.5)] == [True, True, False]
