"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Counts of invocations, of samples and of environments; `steady` in seconds."""

    warm: int
    cold: int
    crowd: int
    growth: int
    steady: float
    rounds: int
    """Turns that what is compared takes with what it is compared to."""
    managed: int
    """Invocations in each turn."""
    relayed: int
    """Requests in each turn of 32 callers; a fifth of it for one caller."""
    wakes: int
    starts: int
    backlog: int
    """Events that wait."""


QUICK = Sizes(
    warm=3000,
    cold=10,
    crowd=500,
    growth=20_000,
    steady=5.0,
    rounds=3,
    managed=3000,
    relayed=5000,
    wakes=40,
    starts=4,
    backlog=100_000,
)
FULL = Sizes(
    warm=20_000,
    cold=60,
    crowd=500,
    growth=200_000,
    steady=30.0,
    rounds=7,
    managed=10_000,
    relayed=20_000,
    wakes=200,
    starts=12,
    backlog=1_000_000,
)
