"""The pool over servers: several invocations in one environment, lines and their order, bounds, health, ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.pools import until
from tests.support.served import Served, health, version

from torpor.contracts.function_compute.contract import FunctionComputeContract
from torpor.contracts.function_compute.server_wire import FunctionComputeServerWire
from torpor.lifecycle import PhaseName
from torpor.model.errors import CallerGone, ShuttingDown, Throttled
from torpor.model.failure import FailureKind
from torpor.model.invocation import Outcome

Make = Callable[..., Any]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Served] = []

    async def served(**options: Any) -> Served:
        bench = Served(tmp_path, **options)
        await bench.provider.open()
        made.append(bench)
        return bench

    yield served
    for bench in made:
        await bench.close()


async def test_invocations_share_an_environment_up_to_its_concurrency(make: Make) -> None:
    bench = await make()
    crowded = version(concurrency=3)
    for name in "abcd":
        bench.submit(crowded, name, hold="go")
    await until(lambda: len(bench.seen) == 4)
    assert sorted(env.running for env in bench.living(crowded)) == [1, 3]
    bench.gate("go").set()
    environments = [(await bench.result(name)).environment for name in "abcd"]
    assert sorted(environments.count(name) for name in set(environments)) == [1, 3]


async def test_requests_that_waited_for_memory_do_not_exceed_the_maximum_once_it_is_there(make: Make) -> None:
    bench = await make(memory_budget_mb=256)
    blocking, bounded = version("blocking", memory_mb=256), version("bounded", maximum=1)
    bench.submit(blocking, "blocking", hold="blocking")
    await until(lambda: bench.seen)
    for name in "ab":
        bench.submit(bounded, name, patient=True, hold="both")
    assert bench.pool.statistics().waiting == 2
    bench.gate("blocking").set()
    await until(lambda: bench.living(bounded))
    bench.pool.retire(blocking)
    await until(lambda: len(bench.seen) == 2)
    assert (len(bench.living(bounded)), bench.pool.statistics().queued) == (1, 1)
    bench.gate("both").set()
    await bench.result("b")


async def test_turns_to_start_an_environment_come_in_the_order_of_arrival_across_functions(make: Make) -> None:
    bench = await make(contract=FunctionComputeContract(instances=1, grace=0.5))
    bench.submit(version("busy"), "busy", hold="busy")
    await until(lambda: bench.seen == ["busy"])
    for name in ("one", "two", "one-more", "two-more"):
        bench.submit(version(name[:3]), name, patient=True, exit=True)
    assert bench.pool.statistics().queued == 4
    bench.gate("busy").set()
    bench.pool.retire(version("busy"))
    await bench.result("two-more")
    assert bench.seen == ["busy", "one", "two", "one-more", "two-more"]


async def test_callers_that_leave_are_told_and_give_way_wherever_they_waited(make: Make) -> None:
    bench = await make(memory_budget_mb=256)
    bench.submit(version("blocking"), "blocking", hold="blocking")
    await until(lambda: bench.seen)
    bench.submit(version("large", memory_mb=256), "large", patient=True)
    bench.submit(version("small"), "small", patient=True)
    assert bench.pool.statistics().waiting == 2
    bench.pool.cancel(bench.requests["large"])
    assert isinstance(bench.results["large"], CallerGone)
    assert isinstance(await bench.result("small"), Outcome)
    bench.gate("blocking").set()
    result = await bench.result("blocking")
    bench.pool.cancel(bench.requests["blocking"])
    assert bench.results["blocking"] is result


async def test_caller_that_leaves_while_its_environment_starts_or_serves_is_told_at_once(make: Make) -> None:
    bench = await make()
    crowded = version(concurrency=2)
    bench.submit(crowded, "early")
    bench.pool.cancel(bench.requests["early"])
    assert bench.results["early"].failure.kind is FailureKind.CANCELLED
    bench.submit(crowded, "late", hold="late")
    await until(lambda: "late" in bench.seen)
    bench.pool.cancel(bench.requests["late"])
    assert bench.results["late"].failure.kind is FailureKind.CANCELLED
    assert len(bench.living(crowded)) == 1 and not bench.living(crowded)[0].is_busy
    assert "early" not in bench.seen


async def test_versions_that_never_had_an_environment_are_forgotten_with_their_last_request(make: Make) -> None:
    bench = await make(memory_budget_mb=128, memory_wait=0.02)
    bench.submit(version("blocking"), "blocking", hold="blocking")
    await until(lambda: bench.seen)
    bench.submit(version("other"), "other")
    assert isinstance(await bench.result("other"), Throttled)
    assert bench.pool.group(version("other").key) is None
    assert not [code for code in bench.pool.code_in_use() if code.digest != "1"]


async def test_code_of_a_request_that_waits_for_memory_is_in_use_though_nothing_runs(make: Make) -> None:
    bench = await make(memory_budget_mb=64)
    bench.submit(version(revision="7"), "never", patient=True)
    assert [code.digest for code in bench.pool.code_in_use()] == ["7"]


async def test_old_environment_that_is_never_without_work_takes_no_more(make: Make) -> None:
    bench = await make(max_age=100.0)
    crowded = version(concurrency=2)
    bench.submit(crowded, "first", hold="first")
    await until(lambda: bench.seen)
    old = bench.living(crowded)[0].id
    bench.clock.ahead += 200.0
    bench.pool.reclaim()
    assert await bench.run(crowded, "second") != old
    bench.gate("first").set()
    await until(lambda: old not in [env.id for env in bench.living(crowded)])


async def test_what_outstays_its_replaced_version_is_ended(make: Make) -> None:
    bench = await make()
    endless = version(concurrency=2)
    bench.submit(endless, "session", hold="never")
    await until(lambda: bench.seen)
    group = bench.pool.group(endless.key)
    group.scaling = replace(group.scaling, leave_limit=900.0)
    bench.pool.retire(endless)
    bench.clock.ahead += 899.0
    bench.pool.reclaim()
    assert bench.living(endless)[0].running == 1
    bench.clock.ahead += 1.1
    bench.pool.reclaim()
    assert (await bench.result("session")).failure.kind is FailureKind.STOPPED
    await until(lambda: not bench.living(endless))


async def test_environment_that_drains_makes_room_for_another_below_the_maximum(make: Make) -> None:
    bench = await make()
    crowded = version(concurrency=2, maximum=1, timeout_s=0.5)
    bench.submit(crowded, "too long", hold="never")
    await until(lambda: bench.seen)
    await asyncio.sleep(0.3)
    bench.submit(crowded, "other", hold="other")
    assert (await bench.result("too long")).failure.kind is FailureKind.TIMEOUT
    (draining,) = bench.living(crowded)
    assert draining.running == 1 and not draining.takes_work
    assert await bench.run(crowded, "next") != draining.id
    bench.gate("other").set()
    assert (await bench.result("other")).environment == draining.id


async def test_what_is_kept_up_shrinks_to_its_minimum_when_it_is_idle_for_long(make: Make) -> None:
    bench = await make(contract=FunctionComputeContract(grace=0.5, idle_timeout=30.0))
    kept = version(minimum=1)
    bench.scaler.keep(kept)
    for name in "abc":
        bench.submit(kept, name, hold="all")
    await until(lambda: len(bench.seen) == 3)
    bench.gate("all").set()
    await bench.result("c")
    await until(lambda: all(env.is_idle for env in bench.living(kept)))
    bench.scaler.tick()
    assert len(bench.living(kept)) == 3
    bench.clock.ahead += 31.0
    bench.scaler.tick()
    await until(lambda: len(bench.living(kept)) == 1)


async def test_what_need_not_be_kept_up_any_more_ends_when_it_is_idle_and_nothing_is_left_of_it(make: Make) -> None:
    bench = await make(contract=FunctionComputeContract(grace=0.5, idle_timeout=30.0))
    kept = version(minimum=2)
    bench.scaler.keep(kept)
    await until(lambda: len(bench.living(kept)) == 2 and all(env.is_idle for env in bench.living(kept)))
    bench.scaler.release(version(minimum=0))
    bench.scaler.tick()
    assert len(bench.living(kept)) == 2
    bench.clock.ahead += 31.0
    bench.pool.reclaim()
    bench.scaler.tick()
    await until(lambda: not bench.living(kept))
    assert bench.pool.group(kept.key) is None


async def test_idle_environments_beyond_what_is_kept_up_make_room_in_memory(make: Make) -> None:
    bench = await make(memory_budget_mb=256)
    kept = version("kept", minimum=1)
    bench.scaler.keep(kept)
    for name in "ab":
        bench.submit(kept, name, hold="all")
    await until(lambda: len(bench.seen) == 2)
    bench.gate("all").set()
    await until(lambda: all(env.is_idle for env in bench.living(kept)) and len(bench.results) == 2)
    for sandbox in bench.provider.sandboxes.values():
        sandbox.base_memory = 128 * 1024 * 1024
    await bench.run(version("other"), "other")
    await until(lambda: len(bench.living(kept)) == 1)


async def test_server_that_always_ends_soon_is_started_ever_more_seldom(make: Make) -> None:
    bench = await make()
    bench.short_lived = True
    kept = version(minimum=1, health=health(period_s=9.0))
    bench.scaler.keep(kept)
    for pause in (1.0, 2.0, 4.0):
        await until(lambda: bench.living(kept))
        await until(lambda: not bench.living(kept))
        bench.scaler.tick()
        group = bench.pool.group(kept.key)
        assert group.retry_at - bench.clock.monotonic() == pytest.approx(pause, abs=0.5)
        bench.clock.ahead += pause
        bench.scaler.tick()


async def test_version_whose_starts_fail_is_not_up_while_they_end(make: Make) -> None:
    bench = await make(contract=FunctionComputeContract(start_limit=0.05, grace=0.5))
    bench.answering = False
    kept = version(minimum=1)
    bench.scaler.keep(kept)
    await until(lambda: bench.living(kept))
    states = set()
    while bench.living(kept):
        states.add(bench.scaler.state(kept)[0])
        await asyncio.sleep(0)
    assert states == {False}


async def test_unhealthy_environment_is_passed_over_replaced_and_not_kept_for_ever(make: Make) -> None:
    bench = await make(contract=FunctionComputeContract(grace=0.5, idle_timeout=30.0))
    kept = version(minimum=1, health=health(), concurrency=2)
    bench.scaler.keep(kept)
    await until(lambda: bench.scaler.state(kept)[0])
    (sick,) = bench.living(kept)
    bench.status["/health"] = 500
    await until(lambda: not sick.takes_work)
    bench.status["/health"] = 200
    sick.machine.healthy = False
    bench.scaler.tick()
    assert await bench.run(kept, "well") != sick.id
    bench.clock.ahead += 31.0
    sick.machine.healthy = False
    bench.pool.reclaim()
    await until(lambda: sick.id not in [env.id for env in bench.living(kept)])


async def test_deleted_version_leaves_nothing_though_an_environment_of_it_lost_its_health(make: Make) -> None:
    bench = await make()
    checked = version(health=health(successes=100), concurrency=2)
    bench.submit(checked, "busy", hold="busy")
    await until(lambda: "busy" in bench.seen)
    bench.status["/health"] = 500
    (environment,) = bench.living(checked)
    await until(lambda: not environment.takes_work)
    bench.pool.retire(checked)
    bench.gate("busy").set()
    await bench.result("busy")
    bench.pool.reclaim()
    await until(lambda: not bench.living(checked))


async def test_patient_requests_are_told_of_the_shutdown(make: Make) -> None:
    bench = await make()
    bounded = version(maximum=1)
    bench.submit(bounded, "busy", hold="never")
    await until(lambda: bench.seen)
    bench.submit(bounded, "patient", patient=True)
    await bench.pool.drain(0.05)
    assert isinstance(bench.results["patient"], ShuttingDown)
    assert bench.results["busy"].failure.kind is FailureKind.STOPPED


async def test_frozen_server_is_told_of_its_end_before_it_ends(make: Make) -> None:
    bench = await make()
    told = version(hooks={"pre-freeze": 2.0, "pre-stop": 2.0})
    await bench.run(told, "one")
    await until(lambda: bench.living(told)[0].phase is PhaseName.FROZEN)
    bench.pool.retire(told)
    await until(lambda: not bench.living(told))
    assert bench.seen == ["one", "/pre-freeze", "/pre-stop"]


async def test_hook_that_cannot_even_be_called_leaves_its_environment_usable(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make()
    told = version(hooks={"pre-freeze": 2.0})
    monkeypatch.setattr(FunctionComputeServerWire, "hook", _broken)
    first = await bench.run(told, "one")
    await until(lambda: bench.living(told)[0].phase is PhaseName.FROZEN)
    assert await bench.run(told, "two") == first


async def test_invocation_that_cannot_be_handed_over_is_told_at_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make()
    monkeypatch.setattr(FunctionComputeServerWire, "call", _broken)
    bench.submit(version(), "one")
    result = await bench.result("one")
    assert result.failure.kind is FailureKind.SANDBOX


async def test_server_that_dies_over_an_invocation_explains_the_lost_connection(make: Make) -> None:
    bench = await make()
    bench.submit(version(), "one", exit=True)
    assert (await bench.result("one")).failure.kind is FailureKind.EXIT
    bench.submit(version(), "two", drop=True)
    assert (await bench.result("two")).failure.kind is FailureKind.NO_ANSWER


def _broken(*_: object, **__: object) -> None:
    raise ZeroDivisionError("a fault of the platform")
