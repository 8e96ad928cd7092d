"""The functions service over real stores: every rule, races decided by hand, and random histories against a model."""

import asyncio
import io
import itertools
import os
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torpor.model.account import PackageLimits, ReservationLimits
from torpor.model.errors import (
    Conflict,
    InvalidPackage,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    StoreUnavailable,
    TooLarge,
    TorporError,
)
from torpor.model.function import CodeRef, FunctionRecord, FunctionVersion
from torpor.service.functions import Changes, Functions, NewFunction
from torpor.store.code import DiskCodeStore
from torpor.store.memory import MemoryMetadataStore
from torpor.store.metadata import SqlMetadataStore
from torpor.store.ports import CodeStore, MetadataStore


def archive(content: str = "x = 1\n") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        package.writestr("app.py", content)
    return buffer.getvalue()


ARCHIVES = [archive("x = " + str(number) * 10) for number in range(3)]
PACKED, UNPACKED = len(ARCHIVES[0]), 14


class HandClock:
    """Stands still until told."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class FailingMetadata(MemoryMetadataStore):
    """Refuses to save or remove while `broken`."""

    broken = False

    def save(self, record: FunctionRecord) -> None:
        if self.broken:
            raise StoreUnavailable("The disk is gone.")
        super().save(record)

    def remove(self, name: str) -> None:
        if self.broken:
            raise StoreUnavailable("The disk is gone.")
        super().remove(name)


class GatedCode(DiskCodeStore):
    """Each `add` and sweep stops at its start or end until the test opens the gate."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.gate = threading.Event()
        self.arrived = threading.Semaphore(0)

    def add(self, archive: bytes, *, unpacked_limit: int) -> CodeRef:
        code = super().add(archive, unpacked_limit=unpacked_limit)
        self._stop()
        return code

    def keep_only(self, used: Iterable[CodeRef]) -> None:
        self._stop()
        super().keep_only(used)

    async def wait_for_arrival(self) -> None:
        assert await asyncio.to_thread(self.arrived.acquire, timeout=10)

    def _stop(self) -> None:
        self.arrived.release()
        assert self.gate.wait(10)


@dataclass(kw_only=True)
class Bench:
    """A service with everything around it."""

    folder: Path
    metadata: MetadataStore = field(default_factory=FailingMetadata)
    clock: HandClock = field(default_factory=HandClock)
    seen: list[tuple[FunctionVersion | None, FunctionVersion | None]] = field(default_factory=list)
    revisions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def service(self, code: CodeStore | None = None, *, account: int = 1000, zipped: int = 10_000) -> Functions:
        return Functions(
            self.metadata,
            code or DiskCodeStore(str(self.folder)),
            clock=self.clock,
            packages=PackageLimits(zipped=zipped, unpacked=1000),
            reservations=ReservationLimits(account=account, unreserved_minimum=100),
            on_change=lambda old, new: self.seen.append((old, new)),
            revisions=lambda: f"r{next(self.revisions)}",
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(folder=tmp_path / "code")


def new(name: str = "greet", **configuration: Any) -> NewFunction:
    return NewFunction(
        name=name,
        resource=f"res:{name}",
        contract="lambda",
        runtime="python3.12",
        handler="app.f",
        configuration=Changes(**configuration),  # type: ignore[typeddict-item]
        tags={"team": "blue"},
    )


async def test_created_function_has_what_was_given_and_is_announced(bench: Bench) -> None:
    functions = bench.service()
    record = await functions.create(new(memory_mb=256, description="d", settings={"A": [1]}), ARCHIVES[0])
    version = record.latest.version
    assert (version.function, version.version, version.revision) == ("greet", "$LATEST", "r1")
    assert (version.memory_mb, version.timeout_s, version.handler) == (256, 3.0, "app.f")
    assert (record.latest.description, record.latest.modified, record.latest.settings) == ("d", 100.0, {"A": [1]})
    assert (record.tags, record.reserved_concurrency) == ({"team": "blue"}, None)
    assert (version.code.packed_bytes, version.code.unpacked_bytes) == (PACKED, UNPACKED)
    assert functions.get("greet") == record and bench.seen == [(None, version)]
    assert await functions.archive_of("greet") == ARCHIVES[0]


async def test_taken_name_is_a_conflict_and_the_function_stays(bench: Bench) -> None:
    functions = bench.service()
    first = await functions.create(new(), ARCHIVES[0])
    with pytest.raises(Conflict):
        await functions.create(new(memory_mb=512), ARCHIVES[1])
    assert functions.get("greet") == first


async def test_two_creates_of_one_name_at_once_exactly_one_wins(bench: Bench) -> None:
    functions = bench.service()
    tries = (functions.create(new(memory_mb=128 + n), ARCHIVES[n % 3]) for n in range(6))
    results = await asyncio.gather(*tries, return_exceptions=True)
    (winner,) = [result for result in results if isinstance(result, FunctionRecord)]
    assert sum(isinstance(result, Conflict) for result in results) == 5
    assert functions.get("greet") == winner and list(bench.metadata.functions()) == [winner]
    assert len(bench.seen) == 1


async def test_create_fails_while_another_of_its_name_is_under_way_that_one_wins(bench: Bench) -> None:
    functions = bench.service()
    results = await asyncio.gather(
        functions.create(new(), b"broken"), functions.create(new(), ARCHIVES[0]), return_exceptions=True
    )
    assert isinstance(results[0], InvalidPackage) and isinstance(results[1], FunctionRecord)


@pytest.mark.parametrize("call", ["get", "delete", "tags", "reserved"])
def test_unknown_name_is_not_found(bench: Bench, call: str) -> None:
    with pytest.raises(NotFound, match="other"):
        getattr(bench.service(), call)("other")


async def test_unknown_name_is_not_found_by_changes(bench: Bench) -> None:
    functions = bench.service()
    with pytest.raises(NotFound):
        await functions.update_code("other", ARCHIVES[0])
    with pytest.raises(NotFound):
        functions.update_configuration("other", {"memory_mb": 512})
    for call in (lambda: functions.tag("other", {}), lambda: functions.reserve("other", 1)):
        with pytest.raises(NotFound):
            call()


async def test_changed_configuration_gets_a_new_revision_and_keeps_the_rest(bench: Bench) -> None:
    functions = bench.service()
    old = await functions.create(new(memory_mb=256, settings={"A": 1, "B": 2}), ARCHIVES[0])
    bench.clock.now = 200.0
    changes = Changes(timeout_s=9.0, description="n", settings={"B": None, "C": {"D": []}}, environment={"X": "1"})
    record = functions.update_configuration("greet", changes)
    expected = replace(old.latest.version, timeout_s=9.0, environment={"X": "1"}, revision="r2")
    assert record.latest.version == expected
    assert (record.latest.settings, record.latest.modified) == ({"A": 1, "C": {"D": []}}, 200.0)
    assert bench.seen[-1] == (old.latest.version, expected)


async def test_values_of_the_caller_changed_later_do_not_change_the_record(bench: Bench) -> None:
    functions, environment = bench.service(), {"X": "1"}
    await functions.create(new(environment=environment), ARCHIVES[0])
    environment["X"] = "2"
    assert functions.get("greet").latest.version.environment == {"X": "1"}


async def test_changed_code_gets_a_new_revision_with_its_changes(bench: Bench) -> None:
    functions = bench.service()
    old = await functions.create(new(memory_mb=256), ARCHIVES[0])
    record = await functions.update_code("greet", ARCHIVES[1], changes={"settings": {"Arch": ["arm64"]}})
    version = record.latest.version
    assert version.code != old.latest.version.code and version.memory_mb == 256 and version.revision == "r2"
    assert record.latest.settings == {"Arch": ["arm64"]}
    assert await functions.archive_of("greet") == ARCHIVES[1]
    assert bench.seen[-1] == (old.latest.version, version)


async def test_wrong_revision_is_refused_and_the_right_one_taken(bench: Bench) -> None:
    functions = bench.service()
    old = await functions.create(new(), ARCHIVES[0])
    with pytest.raises(PreconditionFailed):
        functions.update_configuration("greet", {"memory_mb": 512}, expected_revision="r0")
    with pytest.raises(PreconditionFailed):
        await functions.update_code("greet", ARCHIVES[1], expected_revision="r0")
    assert functions.get("greet") == old
    functions.update_configuration("greet", {"memory_mb": 512}, expected_revision="r1")
    record = await functions.update_code("greet", ARCHIVES[1], expected_revision="r2")
    assert record.latest.version.memory_mb == 512


async def test_code_update_keeps_configuration_changed_while_it_unpacked(bench: Bench) -> None:
    code = GatedCode(str(bench.folder))
    functions = await created(bench, code)
    update = asyncio.create_task(functions.update_code("greet", ARCHIVES[1]))
    await code.wait_for_arrival()
    functions.update_configuration("greet", {"memory_mb": 512})
    code.gate.set()
    record = await update
    assert record.latest.version.memory_mb == 512 and await functions.archive_of("greet") == ARCHIVES[1]


@pytest.mark.parametrize("made_anew", [False, True])
async def test_code_update_racing_a_delete_never_brings_the_function_back(bench: Bench, made_anew: bool) -> None:
    code = GatedCode(str(bench.folder))
    functions = await created(bench, code)
    update = asyncio.create_task(functions.update_code("greet", ARCHIVES[1]))
    await code.wait_for_arrival()
    functions.delete("greet")
    code.gate.set() if not made_anew else None
    if made_anew:
        # The other function's package gets through first: a second gate would only repeat the first.
        functions._packages._store = DiskCodeStore(str(bench.folder))
        await functions.create(new(), ARCHIVES[2])
        code.gate.set()
    with pytest.raises(Conflict if made_anew else NotFound):
        await update
    assert functions.names() == (["greet"] if made_anew else [])
    assert [found.name for found in bench.metadata.functions()] == functions.names()
    assert not made_anew or await functions.archive_of("greet") == ARCHIVES[2]


async def test_code_update_with_a_revision_that_passed_meanwhile_is_refused(bench: Bench) -> None:
    code = GatedCode(str(bench.folder))
    functions = await created(bench, code)
    update = asyncio.create_task(functions.update_code("greet", ARCHIVES[1], expected_revision="r1"))
    await code.wait_for_arrival()
    functions.update_configuration("greet", {"memory_mb": 512})
    code.gate.set()
    with pytest.raises(PreconditionFailed):
        await update


async def test_deleted_function_is_gone_and_announced(bench: Bench) -> None:
    functions = bench.service()
    old = await functions.create(new(), ARCHIVES[0])
    functions.delete("greet")
    assert bench.seen[-1] == (old.latest.version, None)
    assert functions.names() == [] == list(bench.metadata.functions())


async def test_failing_store_changes_nothing_and_announces_nothing(bench: Bench) -> None:
    functions = bench.service()
    old = await functions.create(new(), ARCHIVES[0])
    assert isinstance(bench.metadata, FailingMetadata)
    bench.metadata.broken = True
    calls: list[Callable[[], object]] = [
        lambda: functions.update_configuration("greet", {"memory_mb": 512}),
        lambda: functions.delete("greet"),
        lambda: functions.tag("greet", {"a": "b"}),
        lambda: functions.reserve("greet", 1),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable):
            call()
    with pytest.raises(StoreUnavailable):
        await functions.create(new("other"), ARCHIVES[0])
    assert functions.names() == ["greet"] and functions.get("greet") == old and len(bench.seen) == 1


async def test_tags_are_merged_and_taken_away_under_the_same_revision(bench: Bench) -> None:
    functions = bench.service()
    await functions.create(new(), ARCHIVES[0])
    functions.tag("greet", {"team": "red", "cost": "1"})
    functions.untag("greet", ["cost", "absent"])
    assert functions.tags("greet") == {"team": "red"}
    assert functions.get("greet").latest.version.revision == "r1" and len(bench.seen) == 1


async def test_pages_follow_each_other_in_order_even_when_a_name_vanishes(bench: Bench) -> None:
    functions = bench.service()
    for name in ("c", "a", "b", "d"):
        await functions.create(new(name), ARCHIVES[0])
    records, following = functions.page(None, 2)
    assert ([record.name for record in records], following) == (["a", "b"], "b")
    functions.delete("b")
    records, following = functions.page(following, 2)
    assert ([record.name for record in records], following) == (["c", "d"], None)


@pytest.mark.parametrize(("zipped", "refused"), [(PACKED, False), (PACKED - 1, True)])
async def test_archive_over_the_zipped_limit_is_refused(bench: Bench, zipped: int, refused: bool) -> None:
    functions = bench.service(zipped=zipped)
    if not refused:
        assert await functions.create(new(), ARCHIVES[0])
        return
    with pytest.raises(TooLarge) as caught:
        await functions.create(new(), ARCHIVES[0])
    assert (caught.value.what, caught.value.limit) == ("zipped", zipped) and os.listdir(bench.folder) == []


async def test_layers_count_towards_the_unpacked_limit(bench: Bench) -> None:
    functions, layer = bench.service(), CodeRef(digest="1" * 64, packed_bytes=1, unpacked_bytes=1000 - UNPACKED)
    await functions.create(new(layers=(layer,)), ARCHIVES[0])
    with pytest.raises(TooLarge):
        await functions.update_code("greet", archive("1" * (UNPACKED + 1)))
    with pytest.raises(TooLarge) as caught:
        functions.update_configuration("greet", {"layers": (replace(layer, unpacked_bytes=1001 - UNPACKED),)})
    assert (caught.value.what, caught.value.limit) == ("unpacked", 1000)


async def test_reservations_leave_the_minimum_unreserved(bench: Bench) -> None:
    functions = bench.service()
    for name in ("a", "b"):
        await functions.create(new(name), ARCHIVES[0])
    functions.reserve("a", 600)
    functions.reserve("b", 300)
    with pytest.raises(InvalidRequest) as caught:
        functions.reserve("b", 301)
    assert (caught.value.what, caught.value.limit) == ("unreserved", 100)
    functions.reserve("a", 500)
    functions.reserve("b", 400)
    assert (functions.reserved("a"), functions.total_reserved()) == (500, 900)
    functions.reserve("b", None)
    functions.reserve("a", 0)
    assert (functions.reserved("a"), functions.reserved("b"), functions.total_reserved()) == (0, None, 0)
    with pytest.raises(InvalidRequest):
        functions.reserve("a", -1)


async def test_reservations_over_a_limit_lowered_later_can_still_be_lowered(bench: Bench) -> None:
    functions = bench.service()
    await functions.create(new(), ARCHIVES[0])
    functions.reserve("greet", 900)
    smaller = bench.service(account=200)
    smaller.reserve("greet", 500)
    with pytest.raises(InvalidRequest):
        smaller.reserve("greet", 501)


async def test_code_usage_counts_each_function_for_itself(bench: Bench) -> None:
    functions = bench.service()
    assert functions.code_usage() == (0, 0)
    for name in ("a", "b"):
        await functions.create(new(name), ARCHIVES[0])
    assert functions.code_usage() == (2 * PACKED, 2)


async def test_sweep_keeps_what_functions_and_environments_use(bench: Bench) -> None:
    functions = bench.service()
    first = await functions.create(new(), ARCHIVES[0])
    await functions.update_code("greet", ARCHIVES[1])
    await functions.create(new("gone"), ARCHIVES[2])
    functions.delete("gone")
    await functions.sweep_code(lambda: [first.latest.version.code])
    assert len(os.listdir(bench.folder)) == 4
    await functions.sweep_code()
    used = functions.get("greet").latest.version.code.digest
    assert sorted(os.listdir(bench.folder)) == [used, f"{used}.zip"]


async def test_sweep_waits_for_packages_being_added_and_spares_them(bench: Bench) -> None:
    code = GatedCode(str(bench.folder))
    functions = bench.service(code)
    create = asyncio.create_task(functions.create(new(), ARCHIVES[0]))
    await code.wait_for_arrival()
    sweep = asyncio.create_task(functions.sweep_code())
    later = asyncio.create_task(functions.create(new("later"), ARCHIVES[1]))
    await asyncio.sleep(0)
    code.gate.set()
    await asyncio.gather(create, sweep, later)
    assert await functions.archive_of("greet") == ARCHIVES[0]
    assert await functions.archive_of("later") == ARCHIVES[1]


async def test_cancelled_create_leaves_no_function_and_its_package_to_the_next_sweep(bench: Bench) -> None:
    code = GatedCode(str(bench.folder))
    functions = bench.service(code)
    create = asyncio.create_task(functions.create(new(), ARCHIVES[0]))
    await code.wait_for_arrival()
    create.cancel()
    with pytest.raises(asyncio.CancelledError):
        await create
    sweep = asyncio.create_task(functions.sweep_code())
    await asyncio.sleep(0.02)
    assert not sweep.done()
    code.gate.set()
    await sweep
    assert functions.names() == [] and os.listdir(bench.folder) == []


async def test_sweep_whose_question_fails_blocks_nothing(bench: Bench) -> None:
    functions = bench.service()

    def fail() -> list[CodeRef]:
        raise StoreUnavailable("No answer.")

    with pytest.raises(StoreUnavailable):
        await functions.sweep_code(fail)
    assert await functions.create(new(), ARCHIVES[0])
    await functions.sweep_code()


async def created(bench: Bench, code: GatedCode) -> Functions:
    """A service with one function, whose next packages stop at the gate."""
    code.gate.set()
    functions = bench.service(code)
    await functions.create(new(), ARCHIVES[0])
    await code.wait_for_arrival()
    code.gate.clear()
    return functions


NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("create"), NAMES, NUMBERS),
    st.tuples(st.just("code"), NAMES, NUMBERS),
    st.tuples(st.just("memory"), NAMES, st.integers(128, 512)),
    st.tuples(st.just("environment"), NAMES, st.dictionaries(st.text(max_size=3).filter(str.isascii), st.just("v"))),
    st.tuples(st.just("delete"), NAMES, st.none()),
    st.tuples(st.just("tag"), NAMES, st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"), min_size=1)),
    st.tuples(st.just("untag"), NAMES, st.lists(st.sampled_from("xyz"))),
    st.tuples(st.just("reserve"), NAMES, st.none() | st.integers(-1, 950)),
    st.tuples(st.just("sweep"), NAMES, st.none()),
    st.tuples(st.just("restart"), NAMES, st.none()),
)


class Model:
    """What the service should hold, as plain dictionaries."""

    def __init__(self) -> None:
        self.functions: dict[str, dict[str, Any]] = {}

    def step(self, action: str, name: str, value: Any) -> bool:
        """Whether it succeeds."""
        if action in ("sweep", "restart"):
            return True
        if (name in self.functions) == (action == "create"):
            return False
        if action == "create":
            self.functions[name] = {"code": value, "memory": 128, "environment": {}, "tags": {"team": "blue"}}
            self.functions[name]["reserve"] = None
            return True
        return self._change(action, name, value)

    def _change(self, action: str, name: str, value: Any) -> bool:
        function = self.functions[name]
        if action == "delete":
            del self.functions[name]
        elif action == "tag":
            function["tags"] = {**function["tags"], **value}
        elif action == "untag":
            function["tags"] = {key: kept for key, kept in function["tags"].items() if key not in value}
        elif action == "reserve" and not self._may_reserve(function, value or 0):
            return False
        else:
            function[action] = value
        return True

    def _may_reserve(self, function: dict[str, Any], asked: int) -> bool:
        had = function["reserve"] or 0
        rest = sum(other["reserve"] or 0 for other in self.functions.values()) - had
        return 0 <= asked and (asked <= had or rest + asked <= 900)


async def perform(functions: Functions, action: str, name: str, value: Any) -> bool:
    calls: dict[str, Callable[[], object]] = {
        "memory": lambda: functions.update_configuration(name, {"memory_mb": value}),
        "environment": lambda: functions.update_configuration(name, {"environment": value}),
        "delete": lambda: functions.delete(name),
        "tag": lambda: functions.tag(name, value),
        "untag": lambda: functions.untag(name, value),
        "reserve": lambda: functions.reserve(name, value),
    }
    try:
        if action == "create":
            await functions.create(new(name), ARCHIVES[value])
        elif action == "code":
            await functions.update_code(name, ARCHIVES[value])
        elif action == "sweep":
            await functions.sweep_code()
        else:
            calls[action]()
    except TorporError:
        return False
    return True


async def state(functions: Functions) -> dict[str, dict[str, Any]]:
    found = {}
    for name in functions.names():
        record = functions.get(name)
        version = record.latest.version
        found[name] = {
            "code": ARCHIVES.index(await functions.archive_of(name)),
            "memory": version.memory_mb,
            "environment": version.environment,
            "tags": record.tags,
            "reserve": record.reserved_concurrency,
        }
    return found


async def compare(folder: Path, steps: list[tuple[str, str, Any]]) -> None:
    bench, model = Bench(folder=folder / "code", metadata=SqlMetadataStore(f"{folder}/torpor.db")), Model()
    functions = bench.service()
    for action, name, value in [*steps, ("restart", "", None)]:
        expected = model.step(action, name, value)
        if action == "restart":
            bench.metadata.close()
            bench.metadata = SqlMetadataStore(f"{folder}/torpor.db")
            before, functions = functions, bench.service()
            assert [functions.get(name) for name in functions.names()] == [before.get(name) for name in before.names()]
        else:
            assert await perform(functions, action, name, value) == expected, (action, name, value)
        assert await state(functions) == model.functions
    bench.metadata.close()


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
def test_any_history_with_restarts_ends_as_the_model_says(steps: list[tuple[str, str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(Path(folder), steps))
