"""How many events of a function run at once: found out step by step, and given back when the platform refuses more."""

from hypothesis import given
from hypothesis import strategies as st

from torpor.scheduling.windows import CALM, FIRST, LOOK, Window, looked, refused, share


def test_a_function_whose_events_take_long_gets_twice_as_many_each_time_up_to_the_most() -> None:
    window, sizes = Window(), []
    for _ in range(8):
        window = looked(window, running=window.size, finished=0, most=100, now=0.0)
        sizes.append(window.size)

    assert sizes == [32, 64, 100, 100, 100, 100, 100, 100]


def test_a_function_that_keeps_up_by_itself_gets_no_more() -> None:
    assert looked(Window(), running=FIRST, finished=FIRST + 1, most=100, now=0.0) == Window()


def test_what_is_not_used_up_does_not_grow() -> None:
    assert looked(Window(), running=FIRST - 1, finished=0, most=100, now=0.0) == Window()


def test_after_a_refusal_no_more_than_then_are_tried_for_a_moment() -> None:
    window = refused(5, now=10.0)

    assert looked(window, running=5, finished=0, most=100, now=10.0 + CALM / 2) == window
    assert looked(window, running=5, finished=0, most=100, now=10.0 + CALM) == Window(10)


def test_a_quick_function_soon_gets_back_what_it_had_before_a_refusal_and_no_more() -> None:
    window, sizes = refused(1, now=0.0), []
    for number in range(6):
        window = looked(window, running=window.size, finished=1000, most=100, now=CALM + number * LOOK)
        sizes.append(window.size)

    assert sizes == [2, 4, 8, FIRST, FIRST, FIRST]


@given(st.integers(0, 2000), st.integers(1, 2000), st.integers(0, 5000), st.integers(1, 1000))
def test_a_window_has_room_for_one_and_never_for_more_than_the_most_it_may_grow_to(
    running: int, size: int, finished: int, most: int
) -> None:
    grown = looked(Window(size), running=running, finished=finished, most=most, now=0.0)

    assert grown.size >= 1
    assert grown.size <= max(size, most)
    assert refused(running, 0.0).size == max(running, 1)


def test_what_all_share_is_divided_evenly_and_everybody_has_one() -> None:
    assert (share(30, 3), share(1, 3), share(0, 0)) == (10, 1, 1)
