"""The journal on disk: restart, rotation, a full disk, and readers that follow it."""

import asyncio
from pathlib import Path

import pytest

from torpor.model.errors import StoreUnavailable
from torpor.telemetry import journal as journal_module
from torpor.telemetry import log_group
from torpor.telemetry.journal import Journal

GROUP = "/aws/lambda/f"


def texts(journal: Journal, after: int = 0, limit: int = 1000) -> list[str]:
    return [event.message for event in journal.read(GROUP, after, limit)]


def filled(folder: Path, *messages: str) -> Journal:
    journal = Journal(str(folder))
    journal.append(GROUP, "stream", 1.5, messages)
    return journal


def test_events_are_numbered_stamped_and_read_in_order(tmp_path: Path) -> None:
    journal = filled(tmp_path, "one\n", "two\n")
    found = journal.read(GROUP)
    assert [(event.number, event.time, event.stream, event.message) for event in found] == [
        (1, 1500.0, "stream", "one\n"),
        (2, 1500.0, "stream", "two\n"),
    ]


def test_cursor_reads_on_from_where_it_was_and_without_one_the_newest_come(tmp_path: Path) -> None:
    journal = filled(tmp_path, *(f"{number}" for number in range(1, 11)))
    assert texts(journal, limit=3) == ["8", "9", "10"]
    assert texts(journal, after=4, limit=3) == ["5", "6", "7"]
    assert texts(journal, after=10) == []


def test_restart_knows_what_was_flushed_and_goes_on_counting(tmp_path: Path) -> None:
    filled(tmp_path, "one", "two").flush()
    again = filled(tmp_path, "three")
    assert [(event.number, event.message) for event in again.read(GROUP)] == [(1, "one"), (2, "two"), (3, "three")]


def test_line_cut_off_by_a_crash_is_left_out_and_the_rest_is_there(tmp_path: Path) -> None:
    filled(tmp_path, "one", "two").flush()
    file = next(tmp_path.rglob("events.jsonl"))
    file.write_bytes(file.read_bytes() + b'{"number":3,"time":1.0,"str')
    assert texts(Journal(str(tmp_path))) == ["one", "two"]


def test_files_beyond_the_bound_go_oldest_first_and_the_rest_is_read_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), group_size=3200)
    for number in range(200):
        journal.append(GROUP, "stream", 1.0, [f"message {number}"])
        journal.flush()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.jsonl")) < 3200 + 200
    found = texts(Journal(str(tmp_path)))
    assert found == [f"message {number}" for number in range(200 - len(found), 200)]
    assert len(found) >= 30


def test_files_of_an_earlier_version_are_read_before_those_of_this_one(tmp_path: Path) -> None:
    filled(tmp_path, "one", "two").flush()
    file = next(tmp_path.rglob("events.jsonl"))
    file.rename(file.with_name("events.old.jsonl"))
    file.with_name("group.json").unlink()
    filled(tmp_path, "three").flush()
    assert texts(Journal(str(tmp_path))) == ["one", "two", "three"]


def test_groups_are_kept_apart_and_none_leaves_the_folder(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "logs"))
    for group in ("/a/b", "/a-b", "../../escape", "a%2fb", "ü"):
        journal.append(group, "s", 1.0, [group])
    journal.flush()
    again = Journal(str(tmp_path / "logs"))
    for group in ("/a/b", "/a-b", "../../escape", "a%2fb", "ü"):
        assert [event.message for event in again.read(group)] == [group]
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_folder_that_cannot_be_written_is_told_and_events_stay_readable(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    journal = filled(tmp_path / "logs", "one")
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        journal.flush()
    assert texts(journal) == ["one"]
    (tmp_path / "logs").unlink()
    journal.append(GROUP, "stream", 2.0, ["two"])
    journal.flush()
    assert texts(journal) == ["one", "two"]
    assert texts(Journal(str(tmp_path / "logs")))[-1] == "two"


def test_many_events_on_a_disk_that_fails_never_disturb_who_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_group, "MEMORY_EVENTS", 20)
    (tmp_path / "logs").write_text("in the way")
    journal = Journal(str(tmp_path / "logs"))
    for number in range(100):
        journal.append(GROUP, "stream", 1.0, [str(number)])
    assert texts(journal)[-1] == "99"
    with pytest.raises(StoreUnavailable):
        journal.flush()


async def test_reader_is_woken_by_the_next_event(tmp_path: Path) -> None:
    journal = filled(tmp_path, "one")
    waiting = [asyncio.create_task(journal.wait(GROUP, 1, 5)) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    journal.append(GROUP, "stream", 2.0, ["two"])
    async with asyncio.timeout(1):
        await asyncio.gather(*waiting)
    assert texts(journal, after=1) == ["two"]


async def test_reader_behind_does_not_wait_and_one_without_news_waits_its_time(tmp_path: Path) -> None:
    journal = filled(tmp_path, "one")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await journal.wait(GROUP, 0, 5)
    assert loop.time() - begun < 1
    await journal.wait(GROUP, 1, 0.05)
    assert loop.time() - begun >= 0.05


async def test_deferred_writes_happen_in_order_before_any_read(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    journal.defer(lambda: journal.append(GROUP, "s", 1.0, ["one"]))
    journal.defer(lambda: journal.append(GROUP, "s", 1.0, ["two"]))
    assert texts(journal) == ["one", "two"]
    journal.defer(lambda: journal.append(GROUP, "s", 1.0, ["three"]))
    await asyncio.sleep(journal_module.DEFERRED_FOR * 3)
    assert texts(journal) == ["one", "two", "three"]
