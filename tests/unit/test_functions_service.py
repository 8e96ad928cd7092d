"""The functions service over real stores: every rule, and races decided by hand."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.functions_bench import ARCHIVES, PACKED, UNPACKED, Bench, FailingMetadata, GatedCode, archive, new

from torpor.model.errors import (
    Conflict,
    InvalidPackage,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    StoreUnavailable,
    TooLarge,
)
from torpor.model.function import CodeRef, FunctionRecord
from torpor.service.functions import Changes, Functions
from torpor.store.code import DiskCodeStore


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(folder=tmp_path / "code")


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
    if made_anew:
        code.gated = False
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


async def test_package_that_arrives_during_a_sweep_is_there_afterwards(bench: Bench) -> None:
    code = GatedCode(str(bench.folder))
    functions = await created(bench, code)
    functions.delete("greet")
    sweep = asyncio.create_task(functions.sweep_code())
    await code.wait_for_arrival()
    code.gated = False
    again = asyncio.create_task(functions.create(new(), ARCHIVES[0]))
    await asyncio.sleep(0.02)
    assert not again.done()
    code.gate.set()
    await asyncio.gather(sweep, again)
    assert await functions.archive_of("greet") == ARCHIVES[0]


async def test_sweep_keeps_layers(bench: Bench) -> None:
    store = DiskCodeStore(str(bench.folder))
    layer = store.add(ARCHIVES[1], unpacked_limit=1000)
    functions = bench.service(store)
    await functions.create(new(layers=(layer,)), ARCHIVES[0])
    await functions.sweep_code()
    assert store.archive(layer) == ARCHIVES[1]


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
