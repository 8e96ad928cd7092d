"""The pool over sandboxes without processes: who gets which environment, who waits, who goes, and how it ends."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.pools import Clock, surroundings, until

from torpor.contracts.lambda_.contract import LambdaContract
from torpor.contracts.lambda_.environment import Credentials
from torpor.engine.dispatcher import Dispatcher
from torpor.engine.environment import Environment
from torpor.engine.pool import Pool, PoolLimits
from torpor.lifecycle import PhaseName
from torpor.model.errors import NoMemory, ShuttingDown, Throttled
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.memory import MemoryProcess, MemoryProvider

MIB = 1024 * 1024
NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: api\r\n\r\n"
Running = asyncio.Task[Outcome]


class Bench:
    """A pool, the runtime that runs in its environments, and what that runtime has seen."""

    def __init__(self, code: Path, **limits: Any) -> None:
        self.clock = Clock()
        self.gates: dict[str, asyncio.Event] = {}
        self.seen: list[str] = []
        """The events in the order they reached a runtime."""
        self.provider = MemoryProvider({"/var/task/bootstrap": self._runtime})
        self.reserved = 0
        contract = LambdaContract(credentials=Credentials(access_key="a", secret_key="b", session_token="c"))

        around = surroundings(self.provider, self.clock, code)
        given = {"account_concurrency": 100, "memory_budget_mb": 10_000, "memory_wait": 5.0}
        bounds = PoolLimits(**{**given, "idle_timeout": 60.0, "max_age": 600.0, **limits})
        self.pool = Pool(around, {"lambda": contract}, ImageCatalog("", ()), bounds, lambda: self.reserved)
        self._dispatcher = Dispatcher(self.pool)

    async def _runtime(self, process: MemoryProcess) -> int:
        reader, writer = await process.connect()
        writer.write(NEXT)
        while True:
            headers, body = await _read(reader)
            event = json.loads(body)
            self.seen.append(event["name"])
            await self.gate(event["name"]).wait() if event.get("hold") else None
            if event.get("exit"):
                return 1
            answer = json.dumps(process.sandbox.name).encode()
            path = f"/2018-06-01/runtime/invocation/{headers['lambda-runtime-aws-request-id']}/response"
            writer.write(f"POST {path} HTTP/1.1\r\nHost: api\r\nContent-Length: {len(answer)}\r\n\r\n".encode())
            writer.write(answer)
            await _read(reader)
            await self.gate("between").wait() if event.get("slow") else None
            writer.write(NEXT)

    def gate(self, name: str) -> asyncio.Event:
        """What an invocation that holds waits for."""
        return self.gates.setdefault(name, asyncio.Event())

    def invoke(self, version: FunctionVersion, name: str = "", reserved: int | None = None, **event: object) -> Running:
        """Send one invocation."""
        payload = json.dumps({"name": name, **event}).encode()
        invocation = Invocation(id=str(uuid.uuid4()), payload=payload, resource=version.resource)
        return asyncio.get_running_loop().create_task(self._dispatcher.invoke(version, invocation, reserved))

    async def run(self, version: FunctionVersion, name: str = "", **event: object) -> str:
        """The environment that answered one invocation."""
        return environment_of(await self.invoke(version, name, **event))

    async def hold(self, version: FunctionVersion, *names: str, reserved: int | None = None) -> list[Running]:
        """Invocations that run until their gates open; returns when all have reached a runtime."""
        running = [self.invoke(version, name, reserved, hold=True) for name in names]
        await until(lambda: set(names) <= set(self.seen))
        return running

    def living(self, version: FunctionVersion) -> list[Environment]:
        return [env for env in self.pool.environments() if env.version == version]

    async def until_frozen(self, version: FunctionVersion) -> None:
        await until(lambda: all(env.phase is PhaseName.FROZEN for env in self.living(version)))


async def _read(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
    return headers, await reader.readexactly(int(headers.get("content-length", 0)))


def environment_of(outcome: Outcome) -> str:
    assert outcome.status is OutcomeStatus.SUCCESS, outcome
    name: str = json.loads(outcome.payload)
    return name


def version(function: str = "f", revision: str = "1", memory_mb: int = 128) -> FunctionVersion:
    return FunctionVersion(
        function=function,
        version="$LATEST",
        resource=f"arn:{function}",
        revision=revision,
        contract="lambda",
        runtime="provided.al2023",
        handler="unused",
        code=CodeRef(digest=revision, packed_bytes=1, unpacked_bytes=1),
        memory_mb=memory_mb,
        timeout_s=5.0,
        log_group=f"/{function}",
    )


F = version()


class Benches:
    """Makes benches and drains them in the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.made: list[Bench] = []
        (folder / "bootstrap").write_text("")

    async def __call__(self, **limits: Any) -> Bench:
        bench = Bench(self._folder, **limits)
        await bench.provider.open()
        self.made.append(bench)
        return bench


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Benches]:
    benches = Benches(tmp_path)
    yield benches
    for bench in benches.made:
        for gate in bench.gates.values():
            gate.set()
        await bench.pool.drain(1.0)
        assert bench.pool.statistics().environments == 0
        assert bench.pool.statistics().charged_mb == 0
        assert bench.provider.sandboxes == {}
        await bench.provider.close()


async def test_invocations_one_after_the_other_use_one_environment(make: Benches) -> None:
    bench = await make()
    assert len({await bench.run(F) for _ in range(5)}) == 1
    assert [env.invocations for env in bench.living(F)] == [5]
    assert bench.pool.statistics().charged_mb == 128


async def test_invocations_at_once_have_an_environment_each_and_the_last_used_is_reused(make: Benches) -> None:
    bench = await make()
    one, two, three = await bench.hold(F, "one", "two", "three")
    names = []
    for name, running in (("two", two), ("one", one), ("three", three)):
        bench.gate(name).set()
        names.append(environment_of(await running))
        await until(lambda: sum(env.phase is PhaseName.FROZEN for env in bench.living(F)) == len(names))
    assert len(set(names)) == 3
    assert await bench.run(F) == names[-1]


async def test_environment_about_to_be_free_is_awaited_a_moment_instead_of_starting_one(make: Benches) -> None:
    bench = await make()
    first = await bench.run(F, slow=True)
    following = bench.invoke(F)
    await asyncio.sleep(0.01)
    assert not following.done()
    bench.gate("between").set()
    assert environment_of(await following) == first
    assert len(bench.living(F)) == 1


async def test_environment_that_takes_longer_is_not_awaited(make: Benches) -> None:
    bench = await make()
    first = await bench.run(F, slow=True)
    assert await bench.run(F) != first
    bench.gate("between").set()
    await bench.until_frozen(F)
    assert len(bench.living(F)) == 2


async def test_reservation_and_account_refuse_with_their_reasons(make: Benches) -> None:
    bench = await make(account_concurrency=3)
    bench.reserved = 1
    own, other = version("own"), version("other")
    running = [*await bench.hold(own, "own", reserved=1), *await bench.hold(other, "a", "b")]
    with pytest.raises(Throttled) as reserved:
        await bench.invoke(own, reserved=1)
    with pytest.raises(Throttled) as account:
        await bench.invoke(version("third"))
    assert reserved.value.reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert account.value.reason == "ConcurrentInvocationLimitExceeded"
    assert bench.pool.statistics().running == 3
    for name in ("own", "a", "b"):
        bench.gate(name).set()
    assert [outcome.status for outcome in await asyncio.gather(*running)] == [OutcomeStatus.SUCCESS] * 3
    assert bench.pool.statistics().running == 0
    assert await bench.run(own)


async def test_invocations_wait_for_memory_in_order_and_the_first_holds_back_the_rest(make: Benches) -> None:
    bench = await make(memory_budget_mb=512)
    blocking = await bench.hold(version("blocking", memory_mb=384), "blocking")
    large = bench.invoke(version("large", memory_mb=512), "large")
    small = [bench.invoke(version(f"small{number}"), f"small{number}") for number in range(2)]
    await until(lambda: bench.pool.statistics().waiting == 3)
    assert bench.seen == ["blocking"]
    bench.gate("blocking").set()
    await asyncio.gather(*blocking, large, *small)
    assert bench.seen == ["blocking", "large", "small0", "small1"]
    assert bench.pool.statistics().charged_mb <= 512


async def test_invocation_that_waited_too_long_is_refused_and_the_next_goes_on(make: Benches) -> None:
    bench = await make(memory_budget_mb=256, memory_wait=0.1)
    blocking = await bench.hold(F, "blocking")
    large = bench.invoke(version("large", memory_mb=256))
    await asyncio.sleep(0.05)
    small = bench.invoke(version("small"), "small")
    with pytest.raises(Throttled, match="No memory") as refused:
        await large
    assert refused.value.retry_after is not None and refused.value.retry_after >= 1
    assert environment_of(await small)
    bench.gate("blocking").set()
    await asyncio.gather(*blocking)
    assert bench.pool.statistics().running == 0


async def test_frozen_environments_shrink_to_their_use_and_then_the_oldest_ends(make: Benches) -> None:
    bench = await make(memory_budget_mb=512)
    old, newer, large = version("old"), version("newer"), version("large", memory_mb=384)
    for made in (old, newer):
        name = await bench.run(made)
        bench.provider.sandboxes[name].base_memory = 100 * MIB
        await bench.until_frozen(made)
        bench.clock.ahead += 1
    assert await bench.run(version("third", memory_mb=256))
    assert (len(bench.living(old)), len(bench.living(newer))) == (1, 1)
    await bench.until_frozen(version("third", memory_mb=256))
    assert await bench.run(large)
    assert bench.living(old) == []
    assert bench.pool.statistics().charged_mb <= 512


async def test_running_environments_are_never_ended_for_memory(make: Benches) -> None:
    bench = await make(memory_budget_mb=256, memory_wait=0.05)
    running = await bench.hold(F, "one", "two")
    with pytest.raises(Throttled):
        await bench.invoke(version("other"))
    for name in ("one", "two"):
        bench.gate(name).set()
    assert len({environment_of(outcome) for outcome in await asyncio.gather(*running)}) == 2


async def test_replaced_version_ends_when_idle_at_once_and_when_busy_after_its_invocation(make: Benches) -> None:
    bench = await make()
    running = await bench.hold(F, "busy")
    await bench.run(F, "idle")
    await until(lambda: any(env.phase is PhaseName.FROZEN for env in bench.living(F)))
    bench.pool.retire(F)
    await until(lambda: len(bench.living(F)) == 1)
    newer = version(revision="2")
    assert await bench.run(newer)
    bench.gate("busy").set()
    assert environment_of(await running[0])
    await until(lambda: not bench.living(F))
    assert len(bench.living(newer)) == 1


async def test_tenants_share_no_environment_and_each_uses_its_own_again(make: Benches) -> None:
    bench = await make()
    blue, red = (replace(F, per_tenant=True, tenant=name) for name in ("blue", "red"))
    names = [await bench.run(tenant) for tenant in (blue, red, blue, red)]
    assert names[:2] == names[2:]
    assert len(set(names)) == 2
    assert [env.version.tenant for env in bench.living(red)] == ["red"]


async def test_replaced_version_ends_for_every_tenant_and_nobody_else(make: Benches) -> None:
    bench = await make()
    kept = replace(F, per_tenant=True)
    blue, red, green = (replace(kept, tenant=name) for name in ("blue", "red", "green"))
    other = replace(blue, revision="2")
    (held,) = await bench.hold(blue, "held")
    for each in (red, other):
        await bench.run(each)
    bench.pool.retire(kept)
    await until(lambda: not bench.living(red))
    bench.gate("held").set()
    await held
    await until(lambda: not bench.living(blue))
    assert len(bench.living(other)) == 1
    assert [bench.pool.group(each.key) for each in (blue, red, green)] == [None, None, None]


async def test_waiting_request_of_a_tenant_is_outdated_with_its_version(make: Benches) -> None:
    bench = await make(memory_budget_mb=128)
    kept = replace(F, per_tenant=True)
    (held,) = await bench.hold(version("g"), "held")
    waiting = bench.invoke(replace(kept, tenant="blue"))
    await until(lambda: bench.pool.statistics().waiting == 1)
    bench.pool.retire(kept)
    bench.gate("held").set()
    await asyncio.gather(held, waiting)
    await until(lambda: not bench.living(replace(kept, tenant="blue")))


async def test_reservation_counts_all_tenants_together(make: Benches) -> None:
    bench = await make()
    blue, red = (replace(F, per_tenant=True, tenant=name) for name in ("blue", "red"))
    (held,) = await bench.hold(blue, "held", reserved=1)
    with pytest.raises(Throttled) as refused:
        await bench.invoke(red, reserved=1)
    assert refused.value.reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
    bench.gate("held").set()
    await held


async def test_tenants_without_work_are_forgotten(make: Benches) -> None:
    bench = await make(idle_timeout=60.0)
    tenants = [replace(F, per_tenant=True, tenant=str(number)) for number in range(5)]
    for tenant in tenants:
        await bench.run(tenant)
        await bench.until_frozen(tenant)
    bench.clock.ahead += 61
    bench.pool.reclaim()
    await until(lambda: not bench.pool.environments())
    assert all(bench.pool.group(tenant.key) is None for tenant in tenants)


async def test_request_for_a_replaced_version_that_waited_leaves_no_environment_behind(make: Benches) -> None:
    bench = await make(memory_budget_mb=128)
    blocking = await bench.hold(version("blocking"), "blocking")
    waiting = bench.invoke(F, "late")
    await until(lambda: bench.pool.statistics().waiting == 1)
    bench.pool.retire(F)
    bench.gate("blocking").set()
    await asyncio.gather(*blocking)
    assert environment_of(await waiting)
    await until(lambda: not bench.living(F))


async def test_unused_and_old_environments_are_reclaimed_and_busy_ones_are_not(make: Benches) -> None:
    bench = await make(idle_timeout=60, max_age=600)
    running = await bench.hold(F, "busy")
    idle = version("idle")
    await bench.run(idle)
    await bench.until_frozen(idle)
    bench.clock.ahead += 59
    bench.pool.reclaim()
    assert len(bench.living(idle)) == 1
    bench.clock.ahead += 2
    bench.pool.reclaim()
    await until(lambda: not bench.living(idle))
    assert len(bench.living(F)) == 1
    bench.gate("busy").set()
    await asyncio.gather(*running)


async def test_environment_past_its_age_takes_no_further_invocation(make: Benches) -> None:
    bench = await make(max_age=100)
    running = await bench.hold(F, "busy")
    first = bench.living(F)[0].id
    for env in bench.living(F):
        env.created -= 200
    bench.gate("busy").set()
    assert environment_of(await running[0]) == first
    assert await bench.run(F) != first
    await until(lambda: first not in [env.id for env in bench.living(F)])


async def test_dead_sandbox_is_forgotten_its_caller_told_and_the_next_has_another(make: Benches) -> None:
    bench = await make()
    running = await bench.hold(F, "busy")
    name = bench.living(F)[0].id
    bench.provider.sandboxes[name].die("the host took it")
    assert (await running[0]).status is OutcomeStatus.FAILURE
    assert await bench.run(F) != name
    assert bench.pool.statistics().charged_mb == 128


async def test_runtime_that_exits_answers_with_an_error_and_its_environment_serves_on(make: Benches) -> None:
    bench = await make()
    name = await bench.run(F)
    outcome = await bench.invoke(F, exit=True)
    assert (outcome.status, outcome.error_type) == (OutcomeStatus.ERROR, "Runtime.ExitError")
    assert await bench.run(F) == name


async def test_drain_lets_what_runs_finish_and_refuses_what_waits_and_comes(make: Benches) -> None:
    bench = await make(memory_budget_mb=128)
    running = await bench.hold(F, "busy")
    waiting = bench.invoke(version("other"))
    await until(lambda: bench.pool.statistics().waiting == 1)
    draining = asyncio.get_running_loop().create_task(bench.pool.drain(5.0))
    await asyncio.sleep(0.03)
    with pytest.raises(ShuttingDown):
        await bench.invoke(F)
    bench.gate("busy").set()
    assert environment_of(await running[0])
    with suppress(ShuttingDown):
        assert environment_of(await waiting)
    await draining
    assert bench.provider.sandboxes == {}


async def test_drain_ends_what_does_not_finish_in_time(make: Benches) -> None:
    bench = await make(memory_budget_mb=128)
    running = await bench.hold(F, "busy")
    waiting = bench.invoke(version("other"))
    await asyncio.sleep(0)
    await bench.pool.drain(0.05)
    assert (await running[0]).status is OutcomeStatus.FAILURE
    with pytest.raises(ShuttingDown):
        await waiting
    assert bench.provider.sandboxes == {}


async def test_code_in_use_is_that_of_environments_and_of_requests_that_wait(make: Benches) -> None:
    bench = await make(memory_budget_mb=128)
    running = await bench.hold(F, "busy")
    other = version("other", revision="9")
    waiting = bench.invoke(other)
    await until(lambda: bench.pool.statistics().waiting == 1)
    assert {code.digest for code in bench.pool.code_in_use()} == {"1", "9"}
    bench.gate("busy").set()
    await asyncio.gather(*running, waiting)


async def test_lack_of_memory_is_logged_once_for_the_servers_owner(
    make: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    bench = await make(memory_budget_mb=256, memory_wait=0.01)
    blocking = await bench.hold(F, "one", "two")
    for name in ("other", "another"):
        with pytest.raises(NoMemory, match=r"No memory was free for an environment of 128 MB within 0\.01 s"):
            await bench.invoke(version(name))
    told = [record.getMessage() for record in caplog.records if "are refused" in record.getMessage()]
    assert len(told) == 1 and "invocations of other are refused" in told[0] and "memory budget" in told[0]
    for name in ("one", "two"):
        bench.gate(name).set()
    await asyncio.gather(*blocking)
