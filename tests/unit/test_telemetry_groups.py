"""Log groups and streams: what is known of them, what is found of their events, what survives, expires and goes."""

import asyncio
import builtins
import io
from pathlib import Path
from typing import Any

import pytest

from torpor.model.errors import Conflict, NotFound, StoreUnavailable, TooLarge
from torpor.telemetry import Journal, LogGroups, Query, groups, log_group
from torpor.telemetry.journal import GROUP_SIZE

GROUP = "/aws/lambda/f"
DAY = 24 * 3600.0


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


def opened(folder: Path, clock: Clock | None = None, size: int = GROUP_SIZE) -> tuple[Journal, LogGroups]:
    journal = Journal(str(folder), size)
    return journal, LogGroups(journal, clock or Clock())


async def messages(found: LogGroups, group: str = GROUP, limit: int = 10_000) -> list[str]:
    return [event.message for event in (await found.search(group, Query(limit=limit))).events]


async def test_a_group_is_made_by_its_first_event_and_known_after_a_restart(tmp_path: Path) -> None:
    journal, found = opened(tmp_path)
    assert GROUP not in found.all()
    journal.append(GROUP, "s", 7.5, ["one"])
    assert found.get(GROUP).created == 7500.0
    journal.flush()
    _, again = opened(tmp_path)
    assert again.all()[GROUP].created == 7500.0
    assert again.stored(GROUP) > 0
    assert await messages(again) == ["one"]


async def test_asking_for_a_group_does_not_make_it(tmp_path: Path) -> None:
    journal, found = opened(tmp_path)
    with pytest.raises(NotFound, match="log group does not exist"):
        found.streams("nowhere")
    with pytest.raises(NotFound):
        await found.search("nowhere", Query(limit=1))
    journal.read("nowhere")
    journal.flush()
    assert found.all() == {}
    assert list(tmp_path.iterdir()) == []


async def test_events_older_than_memory_are_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_group, "MEMORY_EVENTS", 5)
    journal, found = opened(tmp_path, size=32 * 1000)
    for number in range(100):
        journal.append(GROUP, f"s{number // 50}", number, [str(number)])
        journal.flush()
    assert len(journal.read(GROUP)) == 5
    assert await messages(found) == [str(number) for number in range(100)]
    _, again = opened(tmp_path, size=32 * 1000)
    assert await messages(again) == [str(number) for number in range(100)]
    times = {entry.name: (entry.first, entry.last) for entry in again.streams(GROUP)}
    assert times == {"s0": (0.0, 49_000.0), "s1": (50_000.0, 99_000.0)}


async def test_search_goes_on_while_files_are_closed_and_removed_under_it(tmp_path: Path) -> None:
    journal, found = opened(tmp_path, size=32 * 200)
    for number in range(10):
        journal.append(GROUP, "s", number, [str(number)])
    journal.flush()
    sources = groups._sources(journal.open(GROUP))
    journal.open(GROUP).events.clear()
    files = [*journal.open(GROUP).segments.sources(10**9), *sources]
    for number in range(10, 400):
        journal.append(GROUP, "s", number, [str(number)])
        journal.flush()
    read = [event.message for source in files for event in source.read()]
    assert set(read) <= {str(number) for number in range(10)}
    left = await messages(found)
    assert left == [str(number) for number in range(400 - len(left), 400)]


async def test_a_summary_that_is_missing_or_broken_is_made_again(tmp_path: Path) -> None:
    journal, found = opened(tmp_path, size=32 * 300)
    for number in range(30):
        journal.append(GROUP, f"s{number % 3}", number, [str(number)])
        journal.flush()
    expected = {entry.name: (entry.first, entry.last) for entry in found.streams(GROUP)}
    summaries = sorted(tmp_path.rglob("events.*.json"))
    assert len(summaries) > 3
    summaries[0].unlink()
    summaries[1].write_bytes(b"{broken")
    _, again = opened(tmp_path)
    assert {entry.name: (entry.first, entry.last) for entry in again.streams(GROUP)} == expected
    assert summaries[0].exists()


async def test_deleted_stream_is_gone_and_its_next_event_makes_it_anew(tmp_path: Path) -> None:
    journal, found = opened(tmp_path)
    journal.append(GROUP, "gone", 1.0, ["one"])
    journal.append(GROUP, "kept", 2.0, ["two"])
    journal.flush()
    journal.append(GROUP, "gone", 3.0, ["three"])
    found.delete_stream(GROUP, "gone")
    assert await messages(found) == ["two"]
    assert [event.message for event in journal.read(GROUP)] == ["two"]
    journal.append(GROUP, "gone", 4.0, ["four"])
    journal.flush()
    for reader in (found, opened(tmp_path)[1]):
        assert await messages(reader) == ["two", "four"]
        assert {entry.name: entry.first for entry in reader.streams(GROUP)} == {"kept": 2000.0, "gone": 4000.0}
    with pytest.raises(NotFound, match="log stream does not exist"):
        found.delete_stream(GROUP, "never")


async def test_events_after_a_crash_are_not_taken_for_those_of_a_stream_deleted_before(tmp_path: Path) -> None:
    journal, found = opened(tmp_path)
    journal.append(GROUP, "s", 1.0, ["on disk"])
    journal.flush()
    journal.append(GROUP, "s", 2.0, ["lost"] * 5)
    found.delete_stream(GROUP, "s")
    journal, found = opened(tmp_path)
    journal.append(GROUP, "s", 3.0, ["new"])
    journal.flush()
    assert await messages(found) == ["new"]
    assert await messages(opened(tmp_path)[1]) == ["new"]


async def test_deleted_group_is_gone_and_its_next_event_makes_it_anew(tmp_path: Path) -> None:
    journal, found = opened(tmp_path)
    journal.append(GROUP, "s", 1.0, ["one"])
    journal.flush()
    journal.append(GROUP, "s", 1.0, ["unsaved"])
    found.delete(GROUP)
    assert found.all() == {} and list(tmp_path.iterdir()) == []
    journal.flush()
    with pytest.raises(NotFound):
        found.delete(GROUP)
    journal.append(GROUP, "s", 5.0, ["two"])
    journal.flush()
    for reader in (found, opened(tmp_path)[1]):
        assert await messages(reader) == ["two"]
        assert reader.get(GROUP).created == 5000.0


async def test_who_follows_a_group_goes_on_when_it_is_deleted_and_made_anew(tmp_path: Path) -> None:
    journal, found = opened(tmp_path)
    journal.append(GROUP, "s", 1.0, ["one"])
    _, cursor = found.follow(GROUP, None, 10)
    waiting = asyncio.create_task(journal.wait(GROUP, cursor, 5.0))
    await asyncio.sleep(0)
    found.delete(GROUP)
    assert found.follow(GROUP, cursor, 10) == ([], cursor)
    journal.append(GROUP, "s", 2.0, ["two"])
    await asyncio.wait_for(waiting, 1.0)
    events, _ = found.follow(GROUP, cursor, 10)
    assert [event.message for event in events] == ["two"]


async def test_what_was_being_deleted_when_the_server_died_is_removed(tmp_path: Path) -> None:
    journal, _found = opened(tmp_path)
    journal.append(GROUP, "s", 1.0, ["one"])
    journal.flush()
    folder = next(tmp_path.iterdir())
    folder.rename(folder.with_name(folder.name + ".going"))
    _, again = opened(tmp_path)
    assert again.all() == {}
    assert list(tmp_path.iterdir()) == []


async def test_groups_and_streams_made_by_hand_are_durable_and_made_once(tmp_path: Path) -> None:
    _, found = opened(tmp_path)
    found.create("mine", {"team": "a"})
    found.create_stream("mine", "s")
    found.keep_for("mine", 7)
    for attempt in (lambda: found.create("mine", {}), lambda: found.create_stream("mine", "s")):
        with pytest.raises(Conflict, match="already exists"):
            attempt()
    _, again = opened(tmp_path)
    document = again.get("mine")
    assert (document.tags, document.retention, document.created) == ({"team": "a"}, 7, 1_000_000.0)
    assert [(entry.name, entry.created, entry.last) for entry in again.streams("mine")] == [("s", 1_000_000.0, None)]
    assert await messages(again, "mine") == []
    again.delete_stream("mine", "s")
    assert again.streams("mine") == []


async def test_events_sent_with_their_own_times_are_found_in_the_order_of_these(tmp_path: Path) -> None:
    journal, found = opened(tmp_path)
    found.create(GROUP, {})
    with pytest.raises(NotFound, match="log stream does not exist"):
        found.put(GROUP, "s", [(5.0, "five")])
    found.create_stream(GROUP, "s")
    found.put(GROUP, "s", [(5.0, "five"), (7.0, "seven")])
    found.put(GROUP, "s", [(6.0, "six")])
    journal.flush()
    for reader in (found, opened(tmp_path)[1]):
        page = await reader.search(GROUP, Query(limit=10))
        assert [(event.message, event.time, event.received) for event in page.events] == [
            ("five", 5.0, 1_000_000.0),
            ("six", 6.0, 1_000_000.0),
            ("seven", 7.0, 1_000_000.0),
        ]
        (stream,) = reader.streams(GROUP)
        assert (stream.created, stream.first, stream.last, stream.received) == (1_000_000.0, 5.0, 7.0, 1_000_000.0)


async def test_expired_events_are_not_shown_at_once_and_their_files_go(tmp_path: Path) -> None:
    clock = Clock(100 * DAY)
    journal, found = opened(tmp_path, clock, size=32 * 200)
    for day in range(90, 101):
        journal.append(GROUP, "s", day * DAY, [f"day {day}"])
        journal.flush()
    found.keep_for(GROUP, 5)
    assert await messages(found) == [f"day {day}" for day in range(95, 101)]
    journal.expire(clock.now)
    assert [event.message for event in journal.read(GROUP)] == [f"day {day}" for day in range(95, 101)]
    on_disk = b"".join(path.read_bytes() for path in tmp_path.rglob("events*.jsonl"))
    assert b"day 90" not in on_disk and b"day 95" in on_disk
    found.keep_for(GROUP, 0)
    assert (await messages(found))[-1] == "day 100"


async def test_events_expire_in_groups_that_nobody_has_opened_since_the_start(tmp_path: Path) -> None:
    clock = Clock(100 * DAY)
    journal, found = opened(tmp_path, clock)
    for group in ("one", "two"):
        journal.append(group, "s", 50 * DAY, ["old"])
        found.keep_for(group, 3)
    journal.flush()
    again, _ = opened(tmp_path, clock)
    for _ in range(2):
        again.expire(clock.now)
    assert list(tmp_path.rglob("events*.jsonl")) == []


async def test_a_full_disk_leaves_events_readable_and_tells_of_a_change_that_was_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs").write_text("in the way")
    journal, found = opened(tmp_path / "logs")
    journal.append(GROUP, "s", 1.0, ["one"])
    with pytest.raises(StoreUnavailable):
        journal.flush()
    assert await messages(found) == ["one"]
    assert [entry.name for entry in found.streams(GROUP)] == ["s"]
    for attempt in (lambda: found.create("other", {}), lambda: found.keep_for(GROUP, 3)):
        with pytest.raises(StoreUnavailable):
            attempt()
    assert found.get(GROUP).retention == 0
    assert "other" not in found.all()


async def test_a_batch_of_which_only_a_part_fitted_on_the_disk_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, _ = opened(tmp_path)
    journal.append(GROUP, "s", 1.0, ["one"])
    journal.flush()
    journal.append(GROUP, "s", 2.0, ["two", "three"])
    whole = builtins.open

    class Short(io.FileIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            return super().write(data[:-10])

    def full(path: str, mode: str = "r", *rest: Any, **more: Any) -> Any:
        return Short(path, mode) if mode == "ab" else whole(path, mode, *rest, **more)

    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(StoreUnavailable, match="No space"):
        journal.flush()
    monkeypatch.undo()
    journal.flush()
    assert await messages(opened(tmp_path)[1]) == ["one", "two", "three"]


async def test_a_file_that_cannot_be_closed_is_written_on_and_no_event_is_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, found = opened(tmp_path, size=32 * 200)
    found.create(GROUP, {})
    journal.append(GROUP, "s", 1.0, ["one" * 100])
    with monkeypatch.context() as broken:
        broken.setattr("torpor.telemetry.segments.os.replace", _refuse)
        journal.flush()
    journal.append(GROUP, "s", 2.0, ["two" * 100])
    journal.flush()
    assert await messages(found) == ["one" * 100, "two" * 100]
    assert await messages(opened(tmp_path)[1]) == ["one" * 100, "two" * 100]
    assert len(list(tmp_path.rglob("events.*.jsonl"))) == 1


def _refuse(*_: object) -> None:
    raise OSError(5, "Input/output error")


async def test_what_is_made_by_hand_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "GROUPS_MAX", 2)
    monkeypatch.setattr(groups, "EMPTY_STREAMS_MAX", 2)
    journal, found = opened(tmp_path)
    found.create("a", {})
    found.create("b", {})
    with pytest.raises(TooLarge):
        found.create("c", {})
    journal.append("functions own", "s", 1.0, ["one"])
    assert "functions own" in found.all()
    found.create_stream("a", "1")
    found.create_stream("a", "2")
    with pytest.raises(TooLarge):
        found.create_stream("a", "3")
    found.put("a", "1", [(1.0, "no longer empty")])
    found.create_stream("a", "3")


async def test_everything_works_in_memory_only() -> None:
    found = LogGroups(journal := Journal(), Clock())
    journal.append(GROUP, "s", 1.0, ["one"])
    journal.flush()
    found.create("mine", {})
    found.create_stream("mine", "s")
    assert await messages(found) == ["one"]
    assert found.stored(GROUP) == 0
    found.delete_stream(GROUP, "s")
    assert await messages(found) == []
    found.delete(GROUP)
    assert set(found.all()) == {"mine"}
