"""Operations on log events: read one stream, search a group, write."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torpor.api.logs.call import Call, Handler
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.cloudwatch_logs import rendering
from torpor.contracts.cloudwatch_logs.batches import accepted, rejected_info
from torpor.contracts.cloudwatch_logs.failures import invalid_parameter
from torpor.contracts.cloudwatch_logs.filter_pattern import filter_pattern
from torpor.contracts.cloudwatch_logs.names import NO_STREAM
from torpor.contracts.cloudwatch_logs.requests import model
from torpor.contracts.cloudwatch_logs.tokens import EventToken, event_token
from torpor.model.clock import Clock
from torpor.telemetry import LogEvent, LogGroups, Page, Position, Query

_SEQUENCE = "0" * 56
"""Sequence tokens mean nothing any more; clients of old want one."""


class EventOperations:
    """Events of groups and streams."""

    def __init__(self, groups: LogGroups, clock: Clock) -> None:
        self._groups = groups
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {"FilterLogEvents": self.filter, "GetLogEvents": self.get, "PutLogEvents": self.put}

    async def get(self, call: Call) -> Mapping[str, Any]:
        """GetLogEvents: a page of one stream, oldest first, with the tokens of the pages on both sides."""
        values, group, stream = call.values, call.group, call.values["logStreamName"]
        self._require_stream(group, stream)
        token = event_token(values["nextToken"]) if "nextToken" in values else None
        forward = token.forward if token is not None else values.get("startFromHead", False)
        query = Query(
            start=values.get("startTime", 0),
            end=values.get("endTime", math.inf),
            stream=stream.__eq__,
            after=_position(token),
            descending=not forward,
            limit=_limit(values),
        )
        page = await self._groups.search(group, query)
        events = page.events if forward else page.events[::-1]
        before, behind = _around(events, page, token, forward=forward, start=query.start)
        return {
            "events": [_event(event) for event in events],
            "nextForwardToken": behind.text,
            "nextBackwardToken": before.text,
        }

    async def filter(self, call: Call) -> Mapping[str, Any]:
        """FilterLogEvents: a page of the events of many streams that match."""
        values, group = call.values, call.group
        token = event_token(values["nextToken"]) if "nextToken" in values else None
        forward = token.forward if token is not None else values.get("startFromHead", True)
        query = Query(
            start=values.get("startTime", 0),
            end=values["endTime"] + 1 if "endTime" in values else math.inf,
            stream=self._chosen(group, values),
            message=filter_pattern(values.get("filterPattern", "")),
            after=_position(token),
            descending=not forward,
            limit=_limit(values),
        )
        page = await self._groups.search(group, query)
        shown = [
            {
                "logStreamName": event.stream,
                **_event(event),
                "eventId": rendering.event_id(event.time, event.number),
            }
            for event in page.events
        ]
        following = page.next
        more = {"nextToken": EventToken(forward, following.time, following.number).text} if following else {}
        return {"events": shown, "searchedLogStreams": [], **more}

    async def put(self, call: Call) -> Mapping[str, Any]:
        """PutLogEvents. Events that are too old or too new are left out, and told."""
        group, stream = call.values["logGroupName"], call.values["logStreamName"]
        expired = self._groups.expired_before(group)
        self._require_stream(group, stream)
        given = [(float(event["timestamp"]), event["message"]) for event in call.values["logEvents"]]
        batch = accepted(given, self._clock.wall() * 1000, expired)
        if batch.events:
            self._groups.put(group, stream, batch.events)
        return {"nextSequenceToken": _SEQUENCE, **rejected_info(batch)}

    def _require_stream(self, group: str, stream: str) -> None:
        if not self._groups.has_stream(group, stream):
            raise ApiFailure("ResourceNotFoundException", NO_STREAM)

    def _chosen(self, group: str, values: Mapping[str, Any]) -> Callable[[str], bool] | None:
        names, prefix = values.get("logStreamNames"), values.get("logStreamNamePrefix")
        if names is not None and prefix is not None:
            raise invalid_parameter("logStreamNames and logStreamNamePrefix cannot be given together.")
        if names is not None:
            known = {entry.name for entry in self._groups.streams(group)}
            if not known.issuperset(names):
                raise ApiFailure("ResourceNotFoundException", NO_STREAM)
        return chooser(names, [prefix] if prefix is not None else None)


def chooser(names: Sequence[str] | None, prefixes: Sequence[str] | None) -> Callable[[str], bool] | None:
    """What tells whether a stream is wanted; None if all are."""
    if names:
        return frozenset(names).__contains__
    if prefixes:
        wanted = tuple(prefixes)
        return lambda stream: stream.startswith(wanted)
    return None


def _limit(values: Mapping[str, Any]) -> int:
    limit: int = values.get("limit", model().shapes["EventsLimit"]["max"])
    return limit


def _event(event: LogEvent) -> dict[str, Any]:
    return rendering.event(event.time, event.received or event.time, event.message)


def _position(token: EventToken | None) -> Position | None:
    return Position(token.time, token.number) if token is not None else None


def _around(
    events: Sequence[LogEvent], page: Page, token: EventToken | None, *, forward: bool, start: float
) -> tuple[EventToken, EventToken]:
    """The tokens that lead backward and forward from a page. Where it ends, the token that led to it comes again."""
    if events:
        first, last = events[0], events[-1]
        before, behind = EventToken(False, first.time, first.number), EventToken(True, last.time, last.number)
    elif token is None or page.next is not None:
        place = page.next or Position(start, 1)
        before, behind = EventToken(False, place.time, place.number), EventToken(True, place.time, 0)
    elif forward:
        before, behind = EventToken(False, token.time, token.number + 1), token
    else:
        before, behind = token, EventToken(True, token.time, max(token.number - 1, 0))
    if page.next is not None:
        further = EventToken(forward, page.next.time, page.next.number)
        return (before, further) if forward else (further, behind)
    return before, behind
