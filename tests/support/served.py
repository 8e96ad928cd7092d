"""Environments whose runtime is a server, over sandboxes without processes: a pool, its server, what that has seen."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

from tests.support.pools import Clock, surroundings, until

from torpor.contracts.function_compute.contract import FunctionComputeContract
from torpor.engine.dispatcher import Dispatcher
from torpor.engine.environment import Environment
from torpor.engine.groups import Request
from torpor.engine.handover import Handover
from torpor.engine.pool import Pool, PoolLimits
from torpor.engine.scaler import Scaler
from torpor.model.errors import TorporError
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, Outcome
from torpor.model.server import HealthCheck, Hook, ServerSettings
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.memory import MemoryProcess, MemoryProvider

CONTRACT = "function_compute"
Result = Outcome | TorporError


class Served:
    """A pool of servers. Events tell the server what to do: `hold` for a gate of that name, `exit`, `drop`."""

    def __init__(self, code: Path, *, contract: FunctionComputeContract | None = None, **limits: Any) -> None:
        self.clock = Clock()
        self.gates: dict[str, asyncio.Event] = {}
        self.seen: list[str] = []
        """Names of events, and paths of the platform's own requests, in the order of their arrival."""
        self.status = {"/health": 200}
        """What the platform's own requests are answered with; 0 for never."""
        self.answering = True
        """Whether servers that start listen."""
        self.short_lived = False
        """Whether servers end a moment after they were ready."""
        self.results: dict[str, Result] = {}
        self.told: list[str] = []
        self.requests: dict[str, Request | None] = {}
        self.provider = MemoryProvider({"/server": self._serve})

        around = surroundings(self.provider, self.clock, code)
        given = {"account_concurrency": 100, "memory_budget_mb": 10_000, "memory_wait": 5.0}
        bounds = PoolLimits(**{**given, "idle_timeout": 60.0, "max_age": 6000.0, **limits})
        made = contract or FunctionComputeContract(grace=0.5)
        self.pool = Pool(around, {CONTRACT: made}, ImageCatalog("", ()), bounds, lambda: 0)
        self.scaler = Scaler(self.pool, self.clock)
        self.handover = Handover(self.pool, self.scaler)
        self._dispatcher = Dispatcher(self.pool, self.handover.in_force)

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    def submit(self, version: FunctionVersion, name: str, *, patient: bool = False, **event: object) -> None:
        """Send an invocation; `results` has what came of it."""
        payload = json.dumps({"name": name, **event}).encode()
        invocation = Invocation(id=str(uuid.uuid4()), payload=payload, resource="f", patient=patient)

        def done(result: Result) -> None:
            self.told.append(name)
            self.results[name] = result

        self.requests[name] = self._dispatcher.submit(version, invocation, None, done)

    async def result(self, name: str) -> Result:
        await until(lambda: name in self.results)
        return self.results[name]

    async def run(self, version: FunctionVersion, name: str, **event: object) -> str:
        """The environment that answered."""
        self.submit(version, name, **event)
        result = await self.result(name)
        assert isinstance(result, Outcome) and not result.error_type, result
        return result.environment

    def living(self, version: FunctionVersion) -> list[Environment]:
        return [env for env in self.pool.environments() if env.key == version.key]

    async def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        await self.pool.drain(0.2)
        counts = self.pool.statistics()
        assert (counts.environments, counts.running, counts.queued, counts.charged_mb) == (0, 0, 0, 0)
        assert sorted(set(self.told)) == sorted(self.told), "everybody is told once"
        assert set(self.told) == set(self.requests), "nobody is forgotten"
        assert not self.provider.sandboxes
        await self.provider.close()

    async def _serve(self, process: MemoryProcess) -> int:
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                path, body = await _read(reader)
                status, sent = await self._answer(path, body, ended)
                if not status:
                    return
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)

        if self.answering:
            await process.serve(answer, int(process.environment["FC_SERVER_PORT"]))
        if self.short_lived:
            await asyncio.sleep(0.02)
            return 3
        return await ended

    async def _answer(self, path: str, body: bytes, ended: asyncio.Future[int]) -> tuple[int, bytes]:
        if path != "/invoke":
            self.seen.append(path)
            status = self.status.get(path, 200)
            if not status:
                await asyncio.Event().wait()
            return status, b""
        event = json.loads(body)
        self.seen.append(event["name"])
        if event.get("hold"):
            await self.gate(event["hold"]).wait()
        if event.get("exit"):
            ended.set_result(1)
            await asyncio.Event().wait()
        return (0, b"") if event.get("drop") else (200, b"{}")


def version(function: str = "f", revision: str = "1", **changes: Any) -> FunctionVersion:
    """A function with a server of its own; `hooks` and `health` are those of its server."""
    server = ServerSettings(
        command=("/server",),
        port=9000,
        hooks={name: Hook(timeout_s=limit) for name, limit in changes.pop("hooks", {}).items()},
        health=changes.pop("health", None),
    )
    return FunctionVersion(
        **{
            "function": function,
            "version": "LATEST",
            "resource": function,
            "revision": revision,
            "contract": CONTRACT,
            "runtime": "custom.debian10",
            "handler": "h",
            "code": CodeRef(digest=revision, packed_bytes=1, unpacked_bytes=1),
            "memory_mb": 128,
            "timeout_s": 5.0,
            "server": server,
            **changes,
        }
    )


def health(**changes: Any) -> HealthCheck:
    return HealthCheck(**{"path": "/health", "period_s": 0.02, "timeout_s": 0.2, "failures": 2, **changes})


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    first, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return first.split()[1], await reader.readexactly(int(headers.get("content-length", "0")))
