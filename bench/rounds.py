"""Measuring in turns: what is compared runs minutes apart otherwise, and the machine is not the same then."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from bench.load import Outcome


@dataclass(frozen=True, slots=True)
class Turns:
    """The outcomes of one of several that were measured in turns, by turn."""

    outcomes: tuple[Outcome, ...]

    @property
    def rate(self) -> float:
        """Good answers a second: the median of all turns."""
        return median(self.rates)

    @property
    def rates(self) -> tuple[float, ...]:
        return tuple(outcome.rate for outcome in self.outcomes)

    def percentile(self, share: float) -> float:
        """Seconds: the median of all turns."""
        return median(outcome.percentile(share) for outcome in self.outcomes)

    @property
    def answers(self) -> int:
        return sum(len(outcome.latencies) for outcome in self.outcomes)

    @property
    def errors(self) -> int:
        return sum(outcome.errors for outcome in self.outcomes)

    @property
    def ceiling(self) -> float:
        """Answers a second beyond which the load cannot go: the median of all turns."""
        return median(outcome.ceiling for outcome in self.outcomes)

    def spread(self, unit: str = "/s") -> str:
        """The lowest and the highest rate of the turns."""
        return f"{min(self.rates):,.0f}–{max(self.rates):,.0f} {unit}"

    def above(self, other: "Turns", share: float = 50) -> float:
        """Seconds by which a percentile is above the other's in the same turn: the median of all turns."""
        pairs = zip(self.outcomes, other.outcomes, strict=True)
        return median(own.percentile(share) - its.percentile(share) for own, its in pairs)


def in_turns(rounds: int, measures: Mapping[str, Callable[[], Outcome]]) -> dict[str, Turns]:
    """Measure each so often; who goes first changes from turn to turn."""
    found: dict[str, list[Outcome]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(measures[name]())
    return {name: Turns(tuple(outcomes)) for name, outcomes in found.items()}
