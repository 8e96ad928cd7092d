"""A version that is kept up serves until its successor does, and never without being wanted."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.pools import until
from tests.support.served import Served, version

from torpor.model.function import FunctionVersion

Make = Callable[..., Awaitable[Served]]
OLD, NEW, THIRD = (version(revision=number, minimum=1, maximum=1) for number in "123")


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    benches: list[Served] = []

    async def made(**changes: Any) -> Served:
        benches.append(Served(tmp_path, **changes))
        bench = benches[-1]
        await bench.provider.open()
        bench.scaler.keep(OLD)
        await until(lambda: bench.living(OLD)[0].is_up)
        return bench

    yield made
    for bench in benches:
        await bench.close()


def replace(bench: Served, old: FunctionVersion, new: FunctionVersion) -> None:
    bench.scaler.keep(new)
    bench.handover.replace(old, new)


def tick(bench: Served) -> None:
    bench.clock.ahead += 1.0
    bench.scaler.tick()
    bench.handover.tick()


async def until_up(bench: Served, wanted: FunctionVersion) -> None:
    def is_up() -> bool:
        tick(bench)
        return any(environment.is_up for environment in bench.living(wanted))

    await until(is_up)


async def test_the_old_version_serves_until_the_new_one_is_up(make: Make) -> None:
    bench = await make()
    old = bench.living(OLD)[0].id
    bench.answering = False
    replace(bench, OLD, NEW)
    tick(bench)
    assert await bench.run(NEW, "meanwhile") == old

    bench.answering = True
    bench.living(NEW)[0].stop("spindown")
    await until(lambda: not bench.living(NEW))
    await until_up(bench, NEW)

    assert await bench.run(NEW, "afterwards") == bench.living(NEW)[0].id
    tick(bench)
    await until(lambda: not bench.living(OLD))
    assert bench.pool.group(OLD.key) is None


async def test_a_version_that_never_came_up_is_replaced_by_what_served_in_its_place(make: Make) -> None:
    bench = await make()
    old = bench.living(OLD)[0].id
    bench.answering = False
    replace(bench, OLD, NEW)
    replace(bench, NEW, THIRD)
    assert await bench.run(THIRD, "meanwhile") == old
    await until(lambda: not bench.living(NEW))
    assert len(bench.living(OLD)) == len(bench.living(THIRD)) == 1


async def test_one_that_has_just_come_up_is_replaced_like_any_other(make: Make) -> None:
    bench = await make()
    replace(bench, OLD, NEW)
    await until(lambda: bench.living(NEW)[0].is_up)
    bench.answering = False
    replace(bench, NEW, THIRD)
    assert await bench.run(THIRD, "meanwhile") == bench.living(NEW)[0].id
    await until(lambda: not bench.living(OLD))


async def test_an_old_instance_that_ends_meanwhile_is_started_again(make: Make) -> None:
    bench = await make()
    bench.answering = False
    replace(bench, OLD, NEW)
    bench.living(OLD)[0].stop("spindown")
    await until(lambda: not bench.living(OLD))
    bench.answering = True
    await until_up(bench, OLD)


async def test_where_memory_is_short_for_both_the_old_one_gives_way(make: Make) -> None:
    bench = await make(memory_budget_mb=200)
    replace(bench, OLD, NEW)
    assert not bench.living(NEW)
    tick(bench)
    await until(lambda: not bench.living(OLD))
    await until_up(bench, NEW)


async def test_one_that_was_down_itself_is_not_waited_with(make: Make) -> None:
    bench = await make()
    bench.living(OLD)[0].stop("spindown")
    await until(lambda: not bench.living(OLD))
    replace(bench, OLD, NEW)
    assert bench.handover.in_force(NEW) is NEW and bench.pool.group(OLD.key) is None


async def test_deletion_ends_what_served_in_the_place_of_the_deleted_one_too(make: Make) -> None:
    bench = await make()
    bench.answering = False
    replace(bench, OLD, NEW)
    bench.handover.forget(NEW)
    await until(lambda: not bench.living(OLD) and not bench.living(NEW))
    assert bench.handover.in_force(NEW) is NEW and not bench.pool.kept
