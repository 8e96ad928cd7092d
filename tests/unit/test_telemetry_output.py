"""Output of processes cut into events: lines and frames, however the bytes happen to arrive."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.telemetry.output import LINE_MAX, FrameReader, LineReader, OutputReader

TEXT, JSON = 0xA55A0003, 0xA55A0002
LEVELS = (0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18)


def frame(message: str | bytes, kind: int = TEXT, micros: int = 1_700_000_000_123_456) -> bytes:
    body = message.encode() if isinstance(message, str) else message
    return struct.pack(">IIQ", kind, len(body), micros) + body


def lines_of(data: bytes, cuts: list[int]) -> list[str]:
    reader = LineReader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += list(reader.feed(data[start:end]))
    return [*found, *reader.flush()]


def events_of(data: bytes, cuts: list[int]) -> list[tuple[float | None, str]]:
    reader = FrameReader()
    found: list[tuple[float | None, str]] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += list(reader.feed(data[start:end]))
    return [*found, *((None, line) for line in reader.flush())]


def test_lines_end_at_newlines_and_carriage_returns_stay() -> None:
    assert lines_of(b"one\ntwo\rmore\n\nrest", []) == ["one\n", "two\rmore\n", "\n", "rest\n"]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert lines_of(b"\xff\xfe\n", []) == ["��\n"]


@pytest.mark.parametrize("at", range(1, len("ä€𝄞\nnext\nend".encode())))
def test_lines_are_the_same_wherever_they_are_split(at: int) -> None:
    assert lines_of("ä€𝄞\nnext\nend".encode(), [at]) == ["ä€𝄞\n", "next\n", "end\n"]


@given(st.binary(max_size=200).map(lambda data: data.replace(b"x", b"\n")), st.sets(st.integers(0, 200)))
def test_lines_do_not_depend_on_the_pieces_they_come_in(data: bytes, cuts: set[int]) -> None:
    assert lines_of(data, sorted(cut for cut in cuts if cut <= len(data))) == lines_of(data, [])


def test_endless_line_is_cut() -> None:
    found = lines_of(b"x" * (2 * LINE_MAX + 5) + b"\n", [])
    assert [len(line.rstrip("\n")) for line in found] == [LINE_MAX, LINE_MAX, 5]
    reader = LineReader()
    unfinished = [line for _ in range(40) for line in reader.feed(b"y" * (LINE_MAX // 8))]
    assert [len(line) for line in unfinished] == [LINE_MAX + 1] * 4


def test_frame_is_one_event_with_its_time_and_may_span_lines() -> None:
    assert events_of(frame("a\nb"), []) == [(1_700_000_000.123456, "a\nb\n")]


@pytest.mark.parametrize("base", (TEXT, JSON))
@pytest.mark.parametrize("level", LEVELS)
def test_frames_of_every_kind_and_level_are_read(base: int, level: int) -> None:
    kind = base & ~0x1C | level
    assert events_of(frame("x\n", base) + frame("y", kind), []) == [
        (1_700_000_000.123456, "x\n"),
        (1_700_000_000.123456, "y\n"),
    ]


TWO = frame("first ä\nmore") + frame("", micros=5) + frame("second", JSON)


@pytest.mark.parametrize("at", range(1, len(TWO)))
def test_frames_are_the_same_wherever_they_are_split(at: int) -> None:
    assert events_of(TWO, [at]) == events_of(TWO, []) == [
        (1_700_000_000.123456, "first ä\nmore\n"),
        (5e-06, "\n"),
        (1_700_000_000.123456, "second\n"),
    ]  # fmt: skip


def test_broken_frame_and_what_follows_are_read_as_lines() -> None:
    data = frame("good") + b"no frame at all, but a line\nand another\n" + b"tail"
    assert events_of(data, []) == [
        (1_700_000_000.123456, "good\n"),
        (None, "no frame at all, but a line\n"),
        (None, "and another\n"),
        (None, "tail\n"),
    ]


def test_frame_that_claims_to_be_huge_is_no_frame() -> None:
    claimed = struct.pack(">IIQ", TEXT, 0xFFFFFFFF, 0)
    assert all(stamp is None for stamp, _ in events_of(claimed + b"text\n", []))
    assert events_of(claimed + b"text\n", [])[-1][1].endswith("text\n")


def test_stream_that_ends_inside_a_frame_gives_what_there_is() -> None:
    data = frame("whole") + frame("cut off")[:-3]
    assert events_of(data, [])[0][1] == "whole\n"
    assert events_of(data, [])[1][1].endswith("cut \n")
    reader = OutputReader()
    assert list(reader.framed(frame("half")[:10])) == []
    assert [stamp for stamp, _ in reader.flush()] == [None]
    assert list(reader.framed(frame("next"))) == [(1_700_000_000.123456, "next\n")]


def test_both_streams_are_kept_apart() -> None:
    reader = OutputReader()
    assert list(reader.plain(b"half ")) == []
    assert list(reader.framed(frame("framed"))) == [(1_700_000_000.123456, "framed\n")]
    assert list(reader.plain(b"line\n")) == [(None, "half line\n")]
