"""The server's own routes below `/_torpor/`: health, environments, logs, events. For its operator, on the same port."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import msgspec

from torpor import __version__, is_compiled
from torpor.api.event_routes import EventRoutes
from torpor.engine.groups import Group
from torpor.engine.pool import Pool
from torpor.lifecycle import PhaseName
from torpor.model.clock import Clock
from torpor.model.errors import NotFound
from torpor.model.event_origin import EventOrigin
from torpor.sandbox.port import Capability, SandboxProvider
from torpor.service.events.desk import EventDesk
from torpor.service.functions import Functions
from torpor.telemetry import History, Journal, Traces
from torpor.transport import Exchange

PREFIX = "/_torpor/"
_JSON = (("Content-Type", "application/json"),)
_WAIT_MAX = 30.0
_EVENTS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminParts:
    """What the routes read from."""

    functions: Functions
    pool: Pool
    journal: Journal
    history: History
    traces: Traces
    provider: SandboxProvider
    clock: Clock
    desk: EventDesk
    origins: Callable[[], Sequence[EventOrigin]]
    """What makes events."""
    runtimes: tuple[str, ...]
    capabilities: Callable[[], tuple[Capability, ...]]
    allowed: Callable[[Exchange], bool]
    """May this request see what only the operator should?"""


class AdminFace:
    """Answers the server's own routes."""

    def __init__(self, parts: AdminParts) -> None:
        self._parts = parts
        self._running: set[asyncio.Task[None]] = set()
        self._events = EventRoutes(parts.desk, parts.clock, parts.origins)
        self._routes: Mapping[str, Callable[[Exchange, Mapping[str, str]], Any]] = {
            "environments": self._environments,
            "doctor": self._doctor,
            "statistics": self._statistics,
            "phases": self._phases,
            "traces": self._traces,
        }

    def handle(self, exchange: Exchange) -> None:
        """Answer one request below `/_torpor/`."""
        name = exchange.path[len(PREFIX) :]
        query = {key: values[0] for key, values in parse_qs(exchange.query).items()}
        about_events = name == "events" or name.startswith("events/")
        if exchange.method != "GET" and not about_events:
            _answer(exchange, 405, {"message": "Only GET is answered here."})
        elif name == "health":
            self._health(exchange)
        elif not self._parts.allowed(exchange):
            _answer(exchange, 403, {"message": "Sign the request with one of the server's access keys."})
        elif about_events:
            self._events.handle(exchange, name.removeprefix("events"), query)
        elif name == "logs":
            task = asyncio.get_running_loop().create_task(self._logs(exchange, query))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        elif name in self._routes:
            try:
                _answer(exchange, 200, self._routes[name](exchange, query))
            except NotFound as error:
                _answer(exchange, 404, {"message": str(error)})
        else:
            _answer(exchange, 404, {"message": f"There is nothing at {exchange.path}."})

    def _environments(self, exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
        now = self._parts.clock.monotonic()
        shown = []
        for environment in self._parts.pool.environments():
            if environment.phase is PhaseName.GONE:  # its folders are being removed
                continue
            usage = environment.statistics()
            shown.append(
                {
                    "id": environment.id,
                    "function": environment.version.function,
                    "version": environment.version.version,
                    "phase": str(environment.phase),
                    "start": str(environment.start),
                    "age_s": round(now - environment.created, 3),
                    "idle_s": 0.0 if environment.is_busy else round(now - environment.last_used, 3),
                    "memory_bytes": usage.memory_bytes,
                    "memory_peak_bytes": usage.memory_peak_bytes,
                    "invocations": environment.invocations,
                    "log_stream": environment.log_stream,
                    "pids": list(usage.processes),
                }
            )
        return {"environments": shown}

    def _statistics(self, exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
        provider = self._parts.provider.statistics()
        return {
            "pool": msgspec.to_builtins(self._parts.pool.statistics()),
            "provisioned": [_metrics(group) for group in self._parts.pool.kept if group.is_apart],
            "compiled": is_compiled(),
            "isolation": str(provider.isolation),
            "sandboxes": provider.live,
            "prepared": dict(provider.prepared),
        }

    def _phases(self, exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
        entries = self._parts.history.read(query.get("function", ""))
        return {"phases": [msgspec.to_builtins(entry) for entry in entries]}

    def _traces(self, exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
        function = self._parts.functions.get(query.get("function", "")).latest.version.function
        events = self._parts.traces.read(function, limit=_EVENTS_MAX)
        return {"segments": [msgspec.Raw(event.message.encode()) for event in events]}

    def _doctor(self, exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
        return {"capabilities": [msgspec.to_builtins(item) for item in self._parts.capabilities()]}

    def _health(self, exchange: Exchange) -> None:
        """Whoever balances load sends nothing more to a server that ends."""
        status, text = (503, "draining") if self._parts.pool.draining else (200, "ok")
        _answer(exchange, status, {"status": text, "version": __version__, "runtimes": self._parts.runtimes})

    async def _logs(self, exchange: Exchange, query: Mapping[str, str]) -> None:
        try:
            name, _, qualifier = query.get("function", "").partition(":")
            version = self._parts.functions.resolve(name, qualifier).version
            after = int(query.get("after") or 0)
            limit = min(int(query.get("limit") or 1000), _EVENTS_MAX)
            wait = min(float(query.get("wait") or 0), _WAIT_MAX)
        except NotFound as error:
            _answer(exchange, 404, {"message": str(error)})
            return
        except ValueError:
            _answer(exchange, 400, {"message": "`after`, `limit` and `wait` are numbers."})
            return
        journal = self._parts.journal
        if wait > 0:
            await journal.wait(version.log_group, after, wait)
        events = journal.read(version.log_group, after, limit)
        cursor = events[-1].number if events else after
        mark = f"[{version.version}]" if qualifier else ""
        shown = [
            {"time": event.time, "stream": event.stream, "message": event.message}
            for event in events
            if mark in event.stream
        ]
        _answer(exchange, 200, {"events": shown, "cursor": str(cursor)})


def _metrics(group: Group) -> dict[str, Any]:
    """Of a version with provisioned concurrency, under the names of the cloud's metrics; sums since it was set."""
    running = sum(environment.is_busy for environment in group.standing)
    return {
        "function": group.version.function,
        "version": group.version.version,
        "ProvisionedConcurrencyInvocations": group.served,
        "ProvisionedConcurrencySpilloverInvocations": group.spilled,
        "ProvisionedConcurrentExecutions": running,
        "ProvisionedConcurrencyUtilization": round(running / group.scaling.minimum, 3),
    }


def _answer(exchange: Exchange, status: int, body: Mapping[str, Any]) -> None:
    exchange.reply(status, _JSON, msgspec.json.encode(body) + b"\n")
