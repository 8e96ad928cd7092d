"""How fast a stream may go on."""

from hypothesis import given
from hypothesis import strategies as st

from torpor.scheduling import TokenBucket


def test_burst_passes_at_once_and_the_rest_at_the_rate() -> None:
    bucket = TokenBucket(100, 10, now=0.0)
    assert bucket.take(60, 0.0) == bucket.take(40, 0.0) == 0.0
    assert bucket.take(5, 0.0) == 0.5
    assert bucket.take(5, 0.5) == 0.5


def test_what_is_not_used_is_saved_up_to_the_burst() -> None:
    bucket = TokenBucket(100, 10, now=0.0)
    bucket.take(100, 0.0)
    assert bucket.take(50, 5.0) == 0.0
    assert bucket.take(101, 1000.0) == 0.1


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=60), gaps=st.lists(st.floats(0, 3), min_size=60))
def test_who_waits_as_told_never_passes_more_than_burst_rate_and_one_piece(sizes: list[int], gaps: list[float]) -> None:
    bucket, now, passed = TokenBucket(100, 10, now=0.0), 0.0, 0
    for size, gap in zip(sizes, gaps, strict=False):
        passed += size
        assert passed - size <= 100 + 10 * now + 1e-6
        now += bucket.take(size, now) + gap
