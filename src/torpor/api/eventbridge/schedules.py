"""Rules that go off: each enabled one has a timer, whose firing becomes an event for each of the rule's targets."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from msgspec.structs import replace

from torpor.api.eventbridge.registry import Document, Rules
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.eventbridge.events import scheduled_event, target_payload
from torpor.contracts.eventbridge.names import Place, target_function
from torpor.contracts.eventbridge.rendering import ENABLED
from torpor.contracts.eventbridge.schedule import NextFire, next_fire
from torpor.contracts.lambda_.identifiers import new_request_id
from torpor.model.event_origin import EventOrigin, qualified

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """What one target of a rule that goes off is sent."""

    function: str
    qualifier: str
    """Empty for none."""
    payload: bytes
    source: str
    """`rule:RULE:TARGET`."""


Fired: TypeAlias = Callable[[str, float, Sequence[Firing]], None]
"""Told the timer, the planned time in seconds since the epoch, and what goes to each of the rule's targets: all of it
happens, or nothing does yet."""


class TimerService(Protocol):
    """Calls at planned times. Times are in seconds since the epoch."""

    def put(self, name: str, following: NextFire, fire: Callable[[float], None]) -> None:
        """Start a timer, or replace the one of that name. `fire` is told each planned time once it has come."""
        ...

    def remove(self, name: str) -> None:
        """Names that are not there are passed over."""
        ...

    def planned(self, name: str) -> float | None:
        """When it goes off next; None if there is no such timer, or no such time."""
        ...


class Schedules:
    """The timers of all enabled rules, from the start on."""

    def __init__(self, rules: Rules, timers: TimerService, fire: Fired, account: str) -> None:
        self._rules = rules
        self._timers = timers
        self._fire = fire
        self._account = account
        for name, document in rules.all():
            self.follow(name, None, document)

    def follow(self, name: str, before: Document | None, after: Document | None) -> None:
        """A rule has become another: None stands for no rule. Its timer goes on if its schedule is the same."""
        if after is None or after["State"] != ENABLED:
            self._timers.remove(_timer(name))
        elif before is None or not same_schedule(before, after):
            following = next_fire(after["ScheduleExpression"], after["Since"])
            self._timers.put(_timer(name), following, partial(self._go_off, name))

    def origins(self) -> Sequence[EventOrigin]:
        """Every rule, once for each of its targets."""
        return [origin for name, document in self._rules.all() for origin in self._origins(name, document)]

    def _origins(self, name: str, document: Document) -> Iterator[EventOrigin]:
        place = Place(account=self._account, region=document["Region"])
        rule = EventOrigin(
            name=_timer(name),
            function="",
            state=document["State"].lower(),
            when=document["ScheduleExpression"],
            next=self._timers.planned(_timer(name)),
        )
        if not document["Targets"]:
            yield rule
        for identity, target in sorted(document["Targets"].items()):
            yield replace(rule, name=f"{rule.name}:{identity}", function=_shown(target["Arn"], place))

    def _go_off(self, name: str, planned: float) -> None:
        document = self._rules.find(name)
        if document is None:
            return
        place = Place(account=self._account, region=document["Region"])
        event = scheduled_event(planned, place.rule_arn(name), place.account, place.region, new_request_id())
        firings = []
        for identity, target in sorted(document["Targets"].items()):
            source = f"{_timer(name)}:{identity}"
            try:
                firings.append(_firing(target, event, place, source))
            except Exception:  # the other targets are told all the same
                _LOG.exception("%s could not be told of the event of %s", target["Arn"], source)
        self._fire(_timer(name), planned, firings)


def _firing(target: Mapping[str, Any], event: bytes, place: Place, source: str) -> Firing:
    named = target_function(target["Arn"], place)
    payload = target_payload(target, event)
    return Firing(function=named.name, qualifier=named.qualifier, payload=payload, source=source)


def same_schedule(before: Document, after: Document) -> bool:
    """Do two documents of a rule go off at the same times?"""
    return all(before[member] == after[member] for member in ("ScheduleExpression", "State"))


def _shown(arn: str, place: Place) -> str:
    """A target's function, or what was put if the server knows it by another name now."""
    try:
        found = target_function(arn, place)
    except ApiFailure:
        return arn
    return qualified(found.name, found.qualifier)


def _timer(rule: str) -> str:
    return f"rule:{rule}"
