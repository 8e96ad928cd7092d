"""Room in the host's memory: never more than there is, and the least recently used pay first."""

from hypothesis import given
from hypothesis import strategies as st

from torpor.scheduling import MemoryView, Room, make_room


def view(name: str, charged: int, used: int, last_used: float) -> MemoryView:
    return MemoryView(id=name, charged=charged, used=used, last_used=last_used)


OLD, MID, NEW = view("old", 100, 40, 1.0), view("mid", 100, 100, 2.0), view("new", 100, 10, 3.0)


def test_enough_free_nothing_has_to_happen() -> None:
    assert make_room(50, 50, [OLD, NEW]) == Room(shrink=(), end=(), enough=True)


def test_shrinking_the_least_recently_used_is_enough() -> None:
    assert make_room(60, 0, [NEW, OLD, MID]) == Room(shrink=("old",), end=(), enough=True)


def test_all_are_shrunk_before_any_is_ended() -> None:
    assert make_room(150, 0, [NEW, MID, OLD]) == Room(shrink=("old", "new"), end=(), enough=True)
    assert make_room(160, 0, [NEW, MID, OLD]) == Room(shrink=("old", "new"), end=("old",), enough=True)


def test_the_least_recently_used_ends_first() -> None:
    assert make_room(191, 0, [NEW, MID, OLD]).end == ("old", "mid")


def test_nothing_is_ended_for_a_request_that_cannot_be_met() -> None:
    assert make_room(301, 0, [NEW, MID, OLD]) == Room(shrink=("old", "new"), end=(), enough=False)


views = st.lists(
    st.builds(
        lambda charged, used, age: (charged, min(charged, used), age),
        st.integers(0, 300),
        st.integers(0, 300),
        st.integers(0, 9),
    ),
    max_size=8,
).map(lambda rows: [view(str(number), *row) for number, row in enumerate(rows)])


@given(views, st.integers(0, 900), st.integers(0, 300))
def test_room_is_promised_exactly_if_it_is_there_and_no_more_is_ended_than_needed(
    idle: list[MemoryView], needed: int, free: int
) -> None:
    room = make_room(needed, free, idle)
    by_id = {one.id: one for one in idle}
    assert room.enough is (needed <= free + sum(one.charged for one in idle))
    shrunk = free + sum(by_id[name].charged - by_id[name].used for name in room.shrink)
    ended = [by_id[name] for name in room.end]
    if room.enough:
        assert shrunk + sum(one.used for one in ended) >= needed
        assert not ended or shrunk + sum(one.used for one in ended[:-1]) < needed
    else:
        assert ended == []
    assert len(set(room.shrink)) == len(room.shrink)
    spared = [one.last_used for one in idle if one.id not in room.end]
    assert not ended or not spared or max(one.last_used for one in ended) <= min(spared)
    assert [one.last_used for one in ended] == sorted(one.last_used for one in ended)


@given(
    st.integers(1, 400),
    st.lists(st.tuples(st.sampled_from("start use finish"), st.integers(0, 5), st.integers(1, 300)), max_size=40),
)
def test_charges_never_exceed_the_budget_whatever_happens(total: int, steps: list[tuple[str, int, int]]) -> None:
    """A host in miniature: charges follow what `make_room` allows, as the engine's budget does."""
    charges: dict[str, int] = {}
    running: set[str] = set()
    for at, (action, which, size) in enumerate(steps):
        name = str(which)
        if action == "f":
            running.discard(name)
            continue
        missing = size - charges.get(name, 0)
        idle = [
            view(other, charge, charge // 2, at)
            for other, charge in charges.items()
            if other not in running and other != name
        ]
        room = make_room(missing, total - sum(charges.values()), idle)
        if not room.enough:
            continue
        for other in room.shrink:
            charges[other] //= 2
        for other in room.end:
            del charges[other]
        charges[name] = max(size, charges.get(name, 0))
        running.add(name)
        assert sum(charges.values()) <= total
