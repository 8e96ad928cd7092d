"""Lines of several workers in one log: each connection's bytes make lines of their own."""

from types import SimpleNamespace
from typing import Any

from torpor.engine.transcript import Transcript
from torpor.telemetry import Journal


def transcript(journal: Journal) -> Transcript:
    anything: Any = SimpleNamespace(log_group="group")
    contract: Any = SimpleNamespace(comments=lambda version: None, line_filter=lambda version: None)
    return Transcript(journal, anything, "stream", contract, lambda: 0)


def texts(journal: Journal) -> list[str]:
    return [event.message for event in journal.read("group")]


def test_pieces_of_two_workers_do_not_mix() -> None:
    journal = Journal()
    lines = transcript(journal)
    lines.worker_output(1, b"first ", 1.0)
    lines.worker_output(2, b"second ", 1.0)
    lines.worker_output(1, b"worker\nrest", 2.0)
    lines.worker_output(2, b"worker\n", 2.0)
    assert [text.strip() for text in texts(journal)] == ["first worker", "second worker"]


def test_unfinished_line_is_one_when_its_connection_ends() -> None:
    journal = Journal()
    lines = transcript(journal)
    lines.worker_output(1, b"no end", 1.0)
    assert texts(journal) == []
    lines.worker_closed(1, 2.0)
    lines.worker_closed(7, 2.0)
    assert [text.strip() for text in texts(journal)] == ["no end"]
