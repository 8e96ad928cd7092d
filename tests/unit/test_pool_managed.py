"""Environments that serve several invocations at once and are kept up by load, over sandboxes without processes."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.pools import Clock, surroundings, until

from torpor.contracts.lambda_.contract import LambdaContract
from torpor.contracts.lambda_.environment import Credentials
from torpor.contracts.lambda_.managed import ManagedContract
from torpor.engine.dispatcher import Dispatcher
from torpor.engine.pool import Pool, PoolLimits
from torpor.engine.scaler import Scaler
from torpor.model.errors import Throttled
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.memory import MemoryProcess, MemoryProvider

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: api\r\n\r\n"


class Managed:
    """A version of a function with `workers` in each environment, and everything around it."""

    def __init__(self, code: Path, workers: int) -> None:
        self.workers = workers
        self.gates: dict[str, asyncio.Event] = {}
        self.late: list[int] = []
        """Statuses that answers out of time got."""
        self.dead = 0
        self.clock = Clock()
        self.broken = False
        self.provider = MemoryProvider({"/var/task/bootstrap": self._runtime})

        around = surroundings(self.provider, self.clock, code)
        credentials = Credentials(access_key="a", secret_key="b", session_token="c")
        contract = ManagedContract(standard=LambdaContract(credentials=credentials))
        limits = PoolLimits(
            account_concurrency=1, memory_budget_mb=100_000, memory_wait=1.0, idle_timeout=60.0, max_age=600.0
        )
        self.pool = Pool(around, {"lambda_managed": contract}, ImageCatalog("", ()), limits, lambda: 0)
        self.scaler = Scaler(self.pool, self.clock)
        self._dispatcher = Dispatcher(self.pool)

    def version(self, **changes: Any) -> FunctionVersion:
        return FunctionVersion(
            **{
                "function": "f",
                "version": "1",
                "resource": "f",
                "revision": "r",
                "contract": "lambda_managed",
                "runtime": "provided.al2023",
                "handler": "h",
                "code": CodeRef(digest="0" * 64, packed_bytes=1, unpacked_bytes=1),
                "memory_mb": 2048,
                "concurrency": self.workers,
                "minimum": 1,
                "maximum": 1,
                **changes,
            }
        )

    async def _runtime(self, process: MemoryProcess) -> int:
        if self.broken:
            return 1
        work = [asyncio.ensure_future(self._work(process)) for _ in range(self.workers)]
        try:
            await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
        return 1

    async def _work(self, process: MemoryProcess) -> None:
        reader, writer = await process.connect()
        while True:
            writer.write(NEXT)
            headers, body = await _read(reader)
            event = json.loads(body)
            if event.get("hold"):
                await self.gate(event["hold"]).wait()
            if event.get("die"):
                self.dead += 1
                writer.close()
                await asyncio.Event().wait()
            answer = json.dumps(process.sandbox.name).encode()
            path = f"/2018-06-01/runtime/invocation/{headers['lambda-runtime-aws-request-id']}/response"
            writer.write(f"POST {path} HTTP/1.1\r\nHost: api\r\nContent-Length: {len(answer)}\r\n\r\n".encode())
            writer.write(answer)
            told, _ = await _read(reader)
            if told["status"] != "202":
                self.late.append(int(told["status"]))

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    def invoke(self, version: FunctionVersion, **event: object) -> asyncio.Task[Outcome]:
        invocation = Invocation(id=str(uuid.uuid4()), payload=json.dumps(event).encode(), resource="f")
        return asyncio.get_running_loop().create_task(self._dispatcher.invoke(version, invocation, None))

    async def up(self, version: FunctionVersion, number: int = 1) -> None:
        """Keep the version up and wait until so many of its environments have all their workers."""
        self.scaler.keep(version)
        await until(lambda: sum(env.free_slots == self.workers for env in self.pool.environments()) == number)


async def _read(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    first, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
    headers["status"] = first.split()[1]
    return headers, await reader.readexactly(int(headers.get("content-length", "0")))


@pytest.fixture
async def managed(tmp_path: Path) -> AsyncIterator[Managed]:
    (tmp_path / "bootstrap").touch()
    made = Managed(tmp_path, 4)
    await made.provider.open()
    yield made
    for gate in made.gates.values():
        gate.set()
    await made.pool.drain(0.0)


async def test_invocations_run_side_by_side_in_one_environment_and_are_refused_when_every_worker_is_busy(
    managed: Managed,
) -> None:
    version = managed.version()
    await managed.up(version)
    running = [managed.invoke(version, hold="g") for _ in range(4)]
    await until(lambda: managed.pool.environments()[0].free_slots == 0)
    with pytest.raises(Throttled):
        await managed.invoke(version)
    managed.gate("g").set()
    names = {(await task).payload for task in running}
    assert len(names) == 1
    assert (await managed.invoke(version)).status is OutcomeStatus.SUCCESS


async def test_a_request_that_comes_while_a_worker_is_on_its_way_back_waits_for_it(managed: Managed) -> None:
    version = managed.version()
    await managed.up(version)
    for _ in range(20):
        outcomes = await asyncio.gather(*(managed.invoke(version) for _ in range(4)))
        assert {outcome.status for outcome in outcomes} == {OutcomeStatus.SUCCESS}


async def test_a_time_out_fails_one_invocation_and_its_late_answer_is_gone(managed: Managed) -> None:
    version = managed.version(timeout_s=0.2)
    await managed.up(version)
    slow = managed.invoke(version, hold="g")
    quick = await managed.invoke(version)
    assert quick.status is OutcomeStatus.SUCCESS
    assert (await slow).status is OutcomeStatus.TIMEOUT
    assert managed.pool.environments()[0].free_slots == 3
    managed.gate("g").set()
    await until(lambda: managed.late == [410])
    await until(lambda: managed.pool.environments()[0].free_slots == 4)


async def test_a_worker_that_ends_shrinks_its_environment(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ManagedContract, "is_connection_per_worker", lambda self, version: True)
    version = managed.version()
    await managed.up(version)
    others = [managed.invoke(version, hold="g") for _ in range(2)]
    lost = await managed.invoke(version, die=True)
    assert lost.status is OutcomeStatus.ERROR and lost.error_type == "Runtime.ExitError"
    managed.gate("g").set()
    assert {(await task).status for task in others} == {OutcomeStatus.SUCCESS}
    (environment,) = managed.pool.environments()
    await until(lambda: environment.free_slots == 3)


async def test_environments_are_added_while_slots_run_short_and_removed_when_idle(managed: Managed) -> None:
    version = managed.version(maximum=3)
    await managed.up(version)
    running = [managed.invoke(version, hold="g") for _ in range(4)]
    await until(lambda: managed.pool.environments()[0].free_slots == 0)
    with pytest.raises(Throttled):
        await managed.invoke(version)
    managed.scaler.tick()
    await until(lambda: len(managed.pool.environments()) == 2)
    await until(lambda: any(env.free_slots == 4 for env in managed.pool.environments()))
    managed.scaler.tick()
    assert len(managed.pool.environments()) == 2
    assert (await managed.invoke(version)).status is OutcomeStatus.SUCCESS
    managed.gate("g").set()
    await asyncio.gather(*running)
    managed.clock.ahead += 1000.0
    managed.scaler.tick()
    await until(lambda: len(managed.pool.environments()) == 1)


async def test_a_version_is_up_once_its_minimum_is_and_failed_after_three_starts_in_vain(managed: Managed) -> None:
    version = managed.version(minimum=2, maximum=2)
    assert managed.scaler.state(version) == (False, "")
    managed.scaler.keep(version)
    await until(lambda: managed.scaler.state(version)[0])
    assert len(managed.pool.environments()) == 2
    managed.broken = True
    other = managed.version(revision="r2")
    managed.scaler.keep(other)
    for _ in range(8):
        await until(lambda: not [env for env in managed.pool.environments() if env.version == other])
        managed.clock.ahead += 100.0
        managed.scaler.tick()
    up, reason = managed.scaler.state(other)
    assert not up and "exit" in reason.lower()


async def test_a_minimum_that_memory_does_not_allow_is_told_and_tried_ever_more_slowly(managed: Managed) -> None:
    version = managed.version(memory_mb=32_768, minimum=4, maximum=4)  # of 100,000 MB
    await managed.up(version, 3)
    for _ in range(3):
        managed.clock.ahead += 100.0
        managed.scaler.tick()
    up, reason = managed.scaler.state(version)
    assert not up
    assert "there are 3, and 4 have to be kept up" in reason
    group = managed.pool.group(version.key)
    assert group is not None and group.retry_at - managed.clock.monotonic() > 5

    managed.scaler.keep(managed.version(memory_mb=32_768, minimum=3, maximum=4))
    assert managed.scaler.state(version) == (True, "")


async def test_bounds_that_change_apply_at_once_to_the_same_environments(managed: Managed) -> None:
    version = managed.version(minimum=3, maximum=3)
    await managed.up(version, 3)
    managed.scaler.keep(managed.version(minimum=1, maximum=1))
    await until(lambda: len(managed.pool.environments()) == 1)
