"""StartLiveTail: new events of some groups, about once a second, until three hours are over or the caller goes."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torpor.api.logs.call import Call
from torpor.api.logs.events import chooser
from torpor.contracts import event_stream
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.cloudwatch_logs import limits, rendering
from torpor.contracts.cloudwatch_logs.failures import invalid_parameter
from torpor.contracts.cloudwatch_logs.filter_pattern import filter_pattern
from torpor.contracts.cloudwatch_logs.names import group_of
from torpor.contracts.http import JSON
from torpor.model.clock import Clock
from torpor.telemetry import LogEvent, LogGroups
from torpor.transport import Exchange

_READ_MAX = 10 * limits.TAIL_EVENTS
"""Events of a group that are looked at for one update; of more, the rest is passed over."""
_TIMED_OUT = "The session has been open for three hours."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a session shows: of which groups and streams, and of their messages."""

    groups: tuple[str, ...]
    stream: Callable[[str], bool] | None
    message: Callable[[str], bool] | None


class LiveTails:
    """All sessions of a server."""

    def __init__(self, groups: LogGroups, clock: Clock) -> None:
        self._groups = groups
        self._clock = clock
        self._open: dict[Exchange, asyncio.Event] = {}

    def close(self) -> None:
        """End every session."""
        for ended in self._open.values():
            ended.set()

    async def serve(self, call: Call, exchange: Exchange, request_id: str) -> None:
        """One session, to its end. Raises ApiFailure and NotFound before anything is answered."""
        wanted = self._wanted(call)
        if len(self._open) >= limits.TAIL_SESSIONS:
            raise ApiFailure("LimitExceededException", f"{limits.TAIL_SESSIONS} sessions are open already.")
        headers = (("Content-Type", event_stream.CONTENT_TYPE), ("x-amzn-RequestId", request_id))
        if not exchange.begin(200, headers):
            return
        ended = self._open[exchange] = asyncio.Event()
        exchange.on_disconnect = ended.set
        try:
            exchange.write(_event("initial-response", {}) + _event("sessionStart", _session(call.values, request_id)))
            await self._update(wanted, exchange, ended, call.place.account)
        finally:
            del self._open[exchange]
            exchange.finish()

    def _wanted(self, call: Call) -> Wanted:
        values = call.values
        groups = tuple(group_of(each, call.place) for each in dict.fromkeys(values["logGroupIdentifiers"]))
        names, prefixes = values.get("logStreamNames"), values.get("logStreamNamePrefixes")
        if names and prefixes:
            raise invalid_parameter("logStreamNames and logStreamNamePrefixes cannot be given together.")
        if (names or prefixes) and len(groups) > 1:
            raise invalid_parameter("Streams can be chosen in a session of one log group only.")
        for group in groups:
            self._groups.get(group)
        message = filter_pattern(values.get("logEventFilterPattern", ""))
        return Wanted(groups=groups, stream=chooser(names, prefixes), message=message)

    async def _update(self, wanted: Wanted, exchange: Exchange, ended: asyncio.Event, account: str) -> None:
        """Send updates until the end. What comes in while the caller reads too slowly is not kept for it beyond what
        the journal has in memory."""
        cursors = {group: self._groups.follow(group, None, 0)[1] for group in wanted.groups}
        until = self._clock.monotonic() + limits.TAIL_LIFETIME
        writable = asyncio.Event()
        writable.set()
        exchange.on_writable = writable.set
        while not await _happens(ended, limits.TAIL_EVERY):
            if self._clock.monotonic() >= until:
                body = json.dumps({"message": _TIMED_OUT}).encode()
                exchange.write(event_stream.exception("SessionTimeoutException", body))
                return
            if writable.is_set():
                news = await self._news(wanted, cursors, account)
                if not exchange.write(_event("sessionUpdate", news)):
                    writable.clear()

    async def _news(self, wanted: Wanted, cursors: dict[str, int], account: str) -> dict[str, Any]:
        found: list[tuple[str, LogEvent]] = []
        sampled = False
        for group in wanted.groups:
            events, cursors[group] = self._groups.follow(group, cursors[group], _READ_MAX)
            if len(events) == _READ_MAX:
                sampled, cursors[group] = True, self._groups.follow(group, None, 0)[1]
            found += [(group, event) for event in events if wanted.stream is None or wanted.stream(event.stream)]
        if found and wanted.message is not None:
            found = await asyncio.to_thread(_matching, found, wanted.message)
        found.sort(key=lambda each: (each[1].time, each[1].number))
        shown = _sample(found, limits.TAIL_EVENTS)
        return {
            "sessionMetadata": {"sampled": sampled or len(shown) < len(found)},
            "sessionResults": [_result(group, event, account) for group, event in shown],
        }


def _matching(found: Sequence[tuple[str, LogEvent]], message: Callable[[str], bool]) -> list[tuple[str, LogEvent]]:
    return [(group, event) for group, event in found if message(event.message)]


def _sample(found: Sequence[tuple[str, LogEvent]], most: int) -> Sequence[tuple[str, LogEvent]]:
    """At most so many, from everywhere alike."""
    if len(found) <= most:
        return found
    return [found[index * len(found) // most] for index in range(most)]


async def _happens(event: asyncio.Event, within: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), within)
    except TimeoutError:
        return False
    return True


def _session(values: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    return {
        "requestId": request_id,
        "sessionId": request_id,
        "logGroupIdentifiers": values["logGroupIdentifiers"],
        "logStreamNames": values.get("logStreamNames", []),
        "logStreamNamePrefixes": values.get("logStreamNamePrefixes", []),
        "logEventFilterPattern": values.get("logEventFilterPattern", ""),
    }


def _result(group: str, event: LogEvent, account: str) -> dict[str, Any]:
    return {
        "logGroupIdentifier": f"{account}:{group}",
        "logStreamName": event.stream,
        **rendering.event(event.time, event.received or event.time, event.message),
    }


def _event(kind: str, value: Mapping[str, Any]) -> bytes:
    return event_stream.event(kind, JSON, json.dumps(value).encode())
