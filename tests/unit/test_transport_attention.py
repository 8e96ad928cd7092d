"""How long an event loop stays awake for what follows an event, and what waits for that."""

import asyncio

import pytest

from torpor.transport import Attention


class Watch:
    """A clock that moves on by a hundredth each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        self.now += 0.01
        return self.now


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_without_a_moment_nothing_waits_and_the_loop_is_left_alone() -> None:
    watch, calls = Watch(), list[str]()
    attention = Attention(0.0, watch)
    attention.attend()
    attention.afterwards(lambda: calls.append("done"))
    assert calls == ["done"]
    await turns(5)
    assert watch.readings == 0


async def test_loop_looks_again_until_the_moment_is_over_and_no_longer() -> None:
    watch = Watch()
    attention = Attention(0.05, watch)
    attention.attend()
    await turns(3)
    assert watch.readings == 4
    await turns(50)
    assert watch.now == pytest.approx(0.06)


async def test_another_event_prolongs_it() -> None:
    watch = Watch()
    attention = Attention(0.05, watch)
    attention.attend()
    await turns(2)
    attention.attend()
    await turns(50)
    assert watch.now == pytest.approx(0.04 + 0.05)


async def test_what_is_postponed_is_done_in_order_after_the_moment_whatever_else_happens() -> None:
    watch, calls = Watch(), list[tuple[str, float]]()
    attention = Attention(0.05, watch)
    attention.afterwards(lambda: calls.append(("one", watch.now)))
    attention.afterwards(lambda: calls.append(("two", watch.now)))
    for _ in range(12):
        attention.attend()
        await turns(1)
    assert [name for name, _ in calls] == ["one", "two"]
    assert all(0.05 <= at <= 0.12 for _, at in calls)


async def test_call_that_fails_keeps_no_other_from_being_made() -> None:
    told, calls = list[str](), list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context.get("exception"))))
    attention = Attention(0.02, Watch())

    def fail() -> None:
        raise ValueError("broken")

    attention.afterwards(fail)
    attention.afterwards(lambda: calls.append("done"))
    await turns(10)
    assert (told, calls) == (["broken"], ["done"])
