"""Environments kept as a set of their own, over sandboxes without processes: who gets them, and what keeps them up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.pools import until
from tests.unit.test_pool import Bench, environment_of
from tests.unit.test_pool import version as unpublished

from torpor.engine.environment import Environment
from torpor.engine.scaler import Scaler
from torpor.lifecycle import PhaseName
from torpor.model.errors import Throttled
from torpor.model.function import FunctionVersion
from torpor.model.invocation import OutcomeStatus
from torpor.model.provision import Standing
from torpor.model.start import Start
from torpor.sandbox.memory import MemoryProcess


class Provisioned(Bench):
    """A bench with a scaler; runtimes start as `start` says."""

    def __init__(self, code: Path, **limits: Any) -> None:
        super().__init__(code, **limits)
        self.scaler = Scaler(self.pool, self.clock)
        self.broken = False
        """Runtimes that start now end before they are ready."""
        self.started = 0
        self.load: asyncio.Event | None = None
        """What runtimes that start now wait for."""

    async def _runtime(self, process: MemoryProcess) -> int:
        self.started += 1
        if self.load is not None:
            await self.load.wait()
        return 1 if self.broken else await super()._runtime(process)

    async def up(self, version: FunctionVersion) -> None:
        self.scaler.keep(version)
        await until(lambda: self.standing(version).up == version.minimum)
        await self.until_rested()

    async def until_rested(self) -> None:
        await until(lambda: all(env.phase is PhaseName.FROZEN for env in self.pool.environments()))

    def try_again(self) -> None:
        """Note what has failed, and let the pause after it pass."""
        self.scaler.tick()
        self.clock.ahead += 100.0
        self.scaler.tick()

    def standing(self, version: FunctionVersion) -> Standing:
        return self.scaler.standing(version)

    def kept(self) -> list[Environment]:
        return [env for env in self.pool.environments() if env.start is Start.PROVISIONED and env.takes_work]

    def spilled(self) -> list[Environment]:
        return [env for env in self.pool.environments() if env.start is Start.ON_DEMAND]


Make = Callable[..., Any]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    (tmp_path / "bootstrap").write_text("")
    made: list[Provisioned] = []

    async def bench(**limits: Any) -> Provisioned:
        made.append(Provisioned(tmp_path, **limits))
        await made[-1].provider.open()
        return made[-1]

    yield bench
    for each in made:
        for gate in (*each.gates.values(), *([each.load] if each.load else [])):
            gate.set()
        await each.pool.drain(1.0)
        assert each.pool.statistics().charged_mb == 0 and each.provider.sandboxes == {}
        await each.provider.close()


def version(number: int, name: str = "1", **changes: Any) -> FunctionVersion:
    return replace(unpublished(), version=name, minimum=number, **changes)


async def test_they_start_together_and_rest_once_they_are_up(make: Make) -> None:
    bench = await make()
    bench.load = asyncio.Event()
    bench.scaler.keep(version(3))
    await until(lambda: bench.started == 3)
    assert bench.standing(version(3)) == Standing()
    bench.load.set()
    await until(lambda: bench.standing(version(3)).up == 3)
    await bench.until_rested()
    for _ in range(3):
        bench.scaler.tick()
    assert bench.started == 3


async def test_a_large_number_does_not_start_all_at_once(make: Make) -> None:
    bench = await make()
    bench.load = asyncio.Event()
    bench.scaler.keep(version(40))
    bench.scaler.tick()
    assert len(bench.kept()) == 16
    bench.load.set()
    for reached in (32, 40):
        await until(lambda: all(env.is_up for env in bench.kept()))
        bench.scaler.tick()
        assert len(bench.kept()) == reached
    await until(lambda: bench.standing(version(40)).up == 40)


async def test_an_invocation_does_not_wait_for_one_that_starts(make: Make) -> None:
    bench = await make()
    bench.load = asyncio.Event()
    bench.scaler.keep(version(1))
    await until(lambda: bench.started == 1)
    invoked = bench.invoke(version(1))
    await until(lambda: bench.started == 2)
    bench.load.set()
    assert environment_of(await invoked) in {env.id for env in bench.spilled()}


async def test_they_are_used_before_those_on_demand_whatever_was_used_last(make: Make) -> None:
    bench = await make()
    v = version(2)
    await bench.up(v)
    running = await bench.hold(v, "a", "b", "c")
    for name in ("a", "b", "c"):
        bench.gate(name).set()
        await running[ord(name) - ord("a")]
    await bench.until_rested()
    (spilled,) = bench.spilled()
    for _ in range(3):
        assert await bench.run(v) != spilled.id
    group = bench.pool.group(v.key)
    assert group is not None and (group.served, group.spilled) == (5, 1)


async def test_spill_over_idles_out_and_they_stay(make: Make) -> None:
    bench = await make()
    v = version(1)
    await bench.up(v)
    await asyncio.gather(*(bench.invoke(v) for _ in range(3)))
    await bench.until_rested()
    bench.clock.ahead += 100.0
    bench.pool.reclaim()
    bench.scaler.tick()
    await until(lambda: not bench.spilled())
    assert bench.standing(v).up == 1


async def test_memory_for_others_is_never_taken_from_them(make: Make) -> None:
    bench = await make(memory_budget_mb=3 * 128, memory_wait=0.05)
    v, other = version(2), unpublished("other")
    await bench.up(v)
    await bench.run(other)
    with pytest.raises(Throttled):
        await bench.hold(other, "one") and await bench.invoke(other)
    assert bench.standing(v).up == 2


@pytest.mark.parametrize("event", [{"exit": True}, {"hold": True}])
async def test_one_that_crashes_or_times_out_is_replaced_before_the_next_invocation(
    make: Make, event: dict[str, bool]
) -> None:
    bench = await make()
    v = version(1, timeout_s=0.2)
    await bench.up(v)
    (first,) = bench.kept()
    assert (await bench.invoke(v, "bad", **event)).status is not OutcomeStatus.SUCCESS
    await until(lambda: first not in bench.pool.environments())
    bench.scaler.tick()
    await until(lambda: bench.standing(v).up == 1)
    assert bench.started == 2
    assert await bench.run(v) == bench.kept()[0].id != first.id
    assert bench.started == 2


async def test_at_their_age_each_is_replaced_once_another_is_up(make: Make) -> None:
    bench = await make()
    v = version(2)
    await bench.up(v)
    old = set(bench.kept())
    bench.clock.ahead += 700.0
    for _ in range(40):
        bench.pool.reclaim()
        bench.scaler.tick()
        assert sum(env.is_up for env in bench.kept()) >= 2
        assert len(bench.kept()) <= 3
        await asyncio.sleep(0.005)
    assert len(bench.kept()) == 2 and not old & set(bench.kept())
    assert bench.started == 4


async def test_an_old_one_stays_as_long_as_its_replacement_fails(make: Make) -> None:
    bench = await make()
    v = version(1)
    await bench.up(v)
    (old,) = bench.kept()
    bench.broken = True
    for _ in range(5):
        bench.clock.ahead += 700.0
        bench.scaler.tick()
        await until(lambda: bench.kept() == [old])
    assert bench.standing(v) == Standing(up=1)
    assert await bench.run(v) == old.id


async def test_starts_that_fail_are_tried_again_with_pauses_and_told_as_failed_after_three(make: Make) -> None:
    bench = await make()
    v = version(1)
    bench.broken = True
    bench.scaler.keep(v)
    for attempt in (1, 2, 3):
        await until(lambda: not bench.pool.environments())
        assert bench.standing(v) == Standing(), "not given up yet"
        bench.scaler.tick()
        bench.scaler.tick()
        assert (bench.started, bench.pool.environments()) == (attempt, []), "there is a pause first"
        bench.try_again()
        assert len(bench.pool.environments()) == 1
    await until(lambda: not bench.pool.environments())
    assert bench.standing(v) == Standing(failed=True)
    bench.broken = False
    bench.try_again()
    await until(lambda: bench.standing(v) == Standing(up=1))


async def test_one_that_always_fails_beside_one_that_works_is_told_as_failed(make: Make) -> None:
    bench = await make()
    v = version(2)
    await bench.up(version(1))
    bench.broken = True
    bench.scaler.keep(v)
    for _ in range(3):
        await until(lambda: len(bench.pool.environments()) == 1)
        assert not bench.standing(v).failed
        bench.try_again()
    assert bench.standing(v) == Standing(up=1, failed=True)


async def test_asking_again_tries_again_at_once(make: Make) -> None:
    bench = await make()
    v = version(1)
    bench.broken = True
    bench.scaler.keep(v)
    await until(lambda: not bench.pool.environments())
    bench.scaler.tick()
    bench.broken = False
    bench.scaler.keep(v)
    await until(lambda: bench.standing(v) == Standing(up=1))


async def test_want_of_memory_is_named_and_made_good_once_there_is_some(make: Make) -> None:
    bench = await make(memory_budget_mb=2 * 128)
    v = version(3)
    bench.scaler.keep(v)
    await until(lambda: bench.standing(v).up == 2)
    shown = bench.standing(v)
    assert not shown.failed and "there are 2, and 3 have to be kept up" in shown.reason
    for _ in range(3):
        bench.clock.ahead += 100.0
        bench.scaler.tick()
    assert bench.standing(v).failed
    bench.scaler.keep(version(2))
    assert bench.standing(version(2)) == Standing(up=2)


async def test_fewer_end_idle_ones_first_and_running_ones_once_they_are_through(make: Make) -> None:
    bench = await make()
    v = version(3)
    await bench.up(v)
    running = await bench.hold(v, "a", "b")
    busy = {env for env in bench.kept() if env.is_busy}
    bench.scaler.keep(version(2))
    await until(lambda: set(bench.pool.environments()) == busy)
    bench.scaler.release(version(0))
    assert bench.kept() == [] and set(bench.pool.environments()) == busy
    for name in ("a", "b"):
        bench.gate(name).set()
    assert [(await task).status for task in running] == [OutcomeStatus.SUCCESS] * 2
    await until(lambda: not bench.pool.environments())
    assert bench.pool.group(v.key) is None, "nothing is kept of it"


async def test_version_deleted_while_its_environments_start_leaves_none(make: Make) -> None:
    bench = await make()
    bench.load = asyncio.Event()
    v = version(2)
    bench.scaler.keep(v)
    await until(lambda: bench.started == 2)
    bench.pool.retire(v)
    bench.scaler.forget(v)
    bench.scaler.tick()
    await until(lambda: not bench.pool.environments())
    assert (bench.started, bench.pool.kept, bench.standing(v)) == (2, [], Standing())


async def test_reservation_of_the_same_size_leaves_nothing_to_other_versions_and_all_to_its_own(make: Make) -> None:
    bench = await make()
    v = version(2)
    await bench.up(v)
    for _ in range(10):
        await asyncio.gather(*(bench.invoke(v, reserved=2) for _ in range(2)))
    with pytest.raises(Throttled) as refused:
        await bench.invoke(version(0, "2"), reserved=2)
    assert refused.value.reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
    running = await bench.hold(v, "a", "b", reserved=2)
    with pytest.raises(Throttled):
        await bench.invoke(v, reserved=2)
    other = await bench.hold(version(0, "2"), "c", reserved=3)
    with pytest.raises(Throttled):
        await bench.invoke(v, reserved=3)
    for name in ("a", "b", "c"):
        bench.gate(name).set()
    assert all([(await task).status is OutcomeStatus.SUCCESS for task in (*running, *other)])


async def test_what_runs_in_them_takes_nothing_of_what_others_may_use(make: Make) -> None:
    bench = await make(account_concurrency=3)
    v, other = version(2), unpublished("other")
    bench.reserved = 2  # set aside for the version's environments
    await bench.up(v)
    running = [*await bench.hold(v, "a", "b"), *await bench.hold(other, "c")]
    for refused in (v, other):
        with pytest.raises(Throttled) as error:
            await bench.invoke(refused)
        assert error.value.reason == "ConcurrentInvocationLimitExceeded"
    for name in ("a", "b", "c"):
        bench.gate(name).set()
        await running.pop(0)
    await bench.run(other)
    assert bench.pool.statistics().running == 0


async def test_an_invocation_waits_a_moment_for_one_that_has_just_answered(make: Make) -> None:
    bench = await make()
    v = version(1)
    await bench.up(v)
    first = await bench.run(v, slow=True)
    following = bench.invoke(v, reserved=1)
    await asyncio.sleep(0.01)
    assert not following.done()
    bench.gate("between").set()
    assert environment_of(await following) == first and not bench.spilled()


async def test_environments_made_ahead_are_like_any_other_on_demand(make: Make) -> None:
    bench = await make()
    v = unpublished()
    bench.pool.start_ahead(v, 1)
    await bench.until_rested()
    (ahead,) = bench.spilled()
    assert (await bench.run(v), bench.started) == (ahead.id, 1)
    await bench.until_rested()
    bench.clock.ahead += 100.0
    bench.pool.reclaim()
    await until(lambda: not bench.pool.environments())


async def test_without_memory_none_is_made_ahead(make: Make) -> None:
    bench = await make(memory_budget_mb=100)
    v = unpublished()
    bench.pool.start_ahead(v, 1)
    assert bench.pool.environments() == [] and bench.pool.group(v.key) is None
