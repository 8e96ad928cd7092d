"""The operator's routes for asynchronous events, below `/_torpor/events`."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from torpor.model.clock import Clock
from torpor.model.errors import Conflict, InvalidRequest, NotFound, TorporError
from torpor.model.event import EventState
from torpor.model.event_origin import EventOrigin
from torpor.service.events.desk import EventDesk, FunctionEvents, Seen
from torpor.store.ports import EventFilter
from torpor.transport import Exchange

_LOG = logging.getLogger(__name__)
_JSON = (("Content-Type", "application/json"),)
_LIST_DEFAULT, _LIST_MAX = 100, 1000
_LOOKED_AT = 500
"""Events that are read at once."""
_KEPT_AS: Mapping[str, tuple[EventState, ...]] = {
    "queued": (EventState.QUEUED, EventState.RUNNING),
    "waiting": (EventState.RUNNING,),
    "running": (EventState.RUNNING,),
    "delivering": (EventState.DELIVERING, EventState.RUNNING),
    "succeeded": (EventState.SUCCEEDED,),
    "failed": (EventState.FAILED,),
    "dead": (EventState.DEAD,),
    "dropped": (EventState.DROPPED,),
}
"""How events of each standing may be kept."""
_STATUSES: tuple[tuple[type[TorporError], int], ...] = ((NotFound, 404), (Conflict, 409), (InvalidRequest, 400))


class EventRoutes:
    """Answers requests whose caller may see and do what the operator may."""

    def __init__(self, desk: EventDesk, clock: Clock, origins: Callable[[], Sequence[EventOrigin]]) -> None:
        self._desk = desk
        self._clock = clock
        self._origins = origins
        self._running: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange, path: str, query: Mapping[str, str]) -> None:
        """Answer one; `path` is what follows `events`."""
        task = asyncio.get_running_loop().create_task(self._answer(exchange, path.strip("/"), query))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, exchange: Exchange, path: str, query: Mapping[str, str]) -> None:
        try:
            status, body = 200, await self._served(exchange.method, path, query)
        except TorporError as error:
            status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 503)
            body = {"message": str(error)}
        except Exception:
            _LOG.exception("%s %s failed", exchange.method, exchange.path)
            status, body = 500, {"message": "An unexpected error occurred; the server's log has the details."}
        exchange.reply(status, _JSON, msgspec.json.encode(body) + b"\n")

    async def _served(self, method: str, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        match method, path.split("/"):
            case "GET", [""]:
                return {"functions": [_function(each) for each in await self._desk.functions()]}
            case "GET", ["list"]:
                return await self._listed(query)
            case "GET", ["sources"]:
                return {"sources": self._origins()}
            case "GET", [identity]:
                return self._shown(await self._desk.get(identity))
            case "POST", [identity, "retry"]:
                return self._shown(await self._desk.retry(identity))
            case "DELETE", [identity]:
                return self._shown(await self._desk.drop(identity))
        raise NotFound(f"There is nothing that answers {method} at events/{path}.")

    async def _listed(self, query: Mapping[str, str]) -> Mapping[str, Any]:
        wanted = query.get("state", "")
        if wanted and wanted not in _KEPT_AS:
            raise InvalidRequest(f"There is no state {wanted}; there are {', '.join(_KEPT_AS)}.")
        limit = min(_number(query, "limit") or _LIST_DEFAULT, _LIST_MAX)
        found = await self._found(wanted, query.get("function", ""), limit, _number(query, "before"))
        shown = [self._line(seen) for seen in found]
        return {"events": shown} | ({"before": found[-1].row.id} if len(found) == limit else {})

    async def _found(self, wanted: str, function: str, limit: int, before: int | None) -> list[Seen]:
        """The newest of a standing, of which the store knows less than is wanted."""
        found: list[Seen] = []
        while len(found) < limit:
            look = EventFilter(limit=_LOOKED_AT, states=_KEPT_AS.get(wanted, ()), lane=function, before=before)
            page = await self._desk.list(look)
            found += [seen for seen in page if wanted in ("", seen.standing)]
            if len(page) < _LOOKED_AT:
                break
            before = page[-1].row.id
        return found[:limit]

    def _line(self, seen: Seen) -> dict[str, Any]:
        row, event, progress = seen.row, seen.row.event, seen.row.progress
        return {
            "id": row.id,
            "request_id": event.request_id,
            "function": event.function,
            "qualifier": event.qualifier,
            "state": seen.standing,
            "accepted": round(event.accepted, 3),
            "age_s": round((progress.ended if row.state.is_ended else self._clock.wall()) - event.accepted, 3),
            "runs": progress.runs,
            "interruptions": progress.interruptions,
            "condition": progress.condition,
            "error_type": progress.result.error_type if progress.result is not None else "",
            "source": event.source,
            "task": event.task,
            "next_attempt": self._desk.wall_of(row.due) if seen.standing in ("queued", "delivering") else None,
        }

    def _shown(self, seen: Seen) -> dict[str, Any]:
        event, progress = seen.row.event, seen.row.progress
        accepted = {"at": event.accepted, "what": "accepted", "detail": event.source}
        return self._line(seen) | {
            "payload": event.payload.decode(errors="replace"),
            "planned": event.planned or None,
            "result": _result(seen),
            "owed": [msgspec.to_builtins(owed) for owed in progress.owed],
            "history": [accepted, *(msgspec.to_builtins(step) for step in progress.steps)],
        }


def _result(seen: Seen) -> dict[str, str] | None:
    result = seen.row.progress.result
    if result is None:
        return None
    shown: dict[str, str] = msgspec.to_builtins(msgspec.structs.replace(result, payload=b""))
    return shown | {"payload": result.payload.decode(errors="replace")}


def _function(each: FunctionEvents) -> dict[str, Any]:
    return {
        "function": each.function,
        "queued": each.queued,
        "running": each.running,
        "delivering": each.delivering,
        **{state.word: number for state, number in each.ended.items()},
        "oldest_s": None if each.oldest is None else round(each.oldest, 3),
        "accepted_per_s": round(each.accepted_rate, 2),
        "ended_per_s": round(each.ended_rate, 2),
        "counters": dict(each.counters),
    }


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not (text.isdecimal() and len(text) < len(str(1 << 62))):
        raise InvalidRequest(f"`{name}` has to be a number.")
    return int(text)
