"""The journal's events: deferred, awaited, kept on disk."""

import asyncio
from pathlib import Path

import pytest

from torpor.telemetry import Journal
from torpor.telemetry.log_group import MEMORY_EVENTS


def _messages(journal: Journal) -> list[str]:
    return [event.message for event in journal.read("group")]


async def test_deferred_events_are_there_for_whoever_reads() -> None:
    journal = Journal()
    journal.defer(lambda: journal.append("group", "stream", 1.0, ["one\n", "two\n"]))
    assert _messages(journal) == ["one\n", "two\n"]


async def test_deferred_events_reach_one_who_waits_though_nobody_reads() -> None:
    journal = Journal()
    waiting = asyncio.create_task(journal.wait("group", 0, 5.0))
    await asyncio.sleep(0)
    journal.defer(lambda: journal.append("group", "stream", 1.0, ["one\n"]))
    await asyncio.wait_for(waiting, 2.0)
    assert _messages(journal) == ["one\n"]


async def test_all_who_wait_for_a_group_are_woken() -> None:
    journal = Journal()
    waiting = [asyncio.create_task(journal.wait("group", 0, 5.0)) for _ in range(2)]
    await asyncio.sleep(0)
    journal.append("group", "stream", 1.0, ["one\n"])
    await asyncio.wait_for(asyncio.gather(*waiting), 2.0)


async def test_flush_writes_deferred_events_and_another_journal_reads_them(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal.defer(lambda: journal.append("group", "stream", 1.5, ["one\n", "two \u20ac\n"]))
    journal.flush()
    again = Journal(str(tmp_path))
    assert [(event.number, event.time, event.stream, event.message) for event in again.read("group")] == [
        (1, 1500.0, "stream", "one\n"),
        (2, 1500.0, "stream", "two \u20ac\n"),
    ]


async def test_journal_without_a_folder_writes_nothing_however_long_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal()
    journal.append("group", "stream", 1.0, ["line\n"] * (MEMORY_EVENTS + 1))
    assert len(journal.read("group", 0, MEMORY_EVENTS * 2)) == MEMORY_EVENTS
    assert list(tmp_path.iterdir()) == []
