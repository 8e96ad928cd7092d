"""How many environments a version should have: what an invocation may start, and what load alone adds and removes."""

import msgspec

from torpor.model.policy import ScalingPolicy, WhenFull
from torpor.scheduling.placement import Placement

_CROWDED = 0.8
"""Part of all slots in use above which one more environment is made."""
_ROOMY = 0.5
"""Part of the slots left after one environment went below which that one may go."""
_FIRST_RETRY = 1.0
_LAST_RETRY = 60.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A version's environments at one moment."""

    environments: int
    """Those that start or serve; not those that end."""
    slots: int
    """Of each one."""
    busy: int
    """Slots in use, all together."""
    refused: bool = False
    """An invocation found no slot since the last look."""
    idle_long: int = 0
    """Environments that were idle for longer than they are kept."""


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """The environments of a version that are kept as a set of their own."""

    up: int
    starting: int
    aged: int = 0
    """Up too, but old enough to be replaced."""

    @property
    def fresh(self) -> int:
        return self.up + self.starting


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done about them."""

    start: int = 0
    end: int = 0
    """Of those that are not aged, first of all of those that start."""
    replace: int = 0
    """Aged ones to end."""


def overflow(policy: ScalingPolicy, *, environments: int, together: int, patient: bool) -> Placement:
    """What becomes of an invocation that has no room: start an environment, wait in the queue, or be refused.

    `environments` are the version's own, `together` those of all versions under the same contract."""
    if policy.on_demand and _below(environments, policy.maximum) and _below(together, policy.together):
        return Placement.START
    if patient or policy.when_full is WhenFull.QUEUE:
        return Placement.QUEUE
    return Placement.REFUSE_FULL


def wanted(policy: ScalingPolicy, load: Load) -> int:
    """How many environments there should be now, judged by load alone."""
    number = max(load.environments, policy.minimum)
    capacity = load.environments * load.slots
    if policy.on_demand:
        number = max(load.environments - load.idle_long, policy.minimum)
    elif load.environments >= policy.minimum:
        if load.refused or (capacity and load.busy > _CROWDED * capacity):
            number = load.environments + 1
        elif load.idle_long and load.busy <= _ROOMY * (capacity - load.slots):
            number = max(load.environments - 1, policy.minimum)
    return number if policy.maximum is None else min(number, policy.maximum)


def steps(minimum: int, apart: Apart) -> Steps:
    """Keep exactly `minimum`. An aged environment goes once another is up in its place, and they go one by one: whoever
    has room for one more needs room for no second set."""
    lacking = minimum - apart.fresh
    start = max(lacking - apart.aged, 0 if apart.starting else 1) if lacking > 0 else 0
    return Steps(start=start, end=max(-lacking, 0), replace=max(apart.aged - max(minimum - apart.up, 0), 0))


def retry_pause(failures: int) -> float:
    """Seconds before the next start after so many failed ones in a row."""
    return min(_FIRST_RETRY * 2.0 ** max(failures - 1, 0), _LAST_RETRY)


def _below(number: int, limit: int | None) -> bool:
    return limit is None or number < limit
