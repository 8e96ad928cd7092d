"""The memory that all environments share: who waits, who has to go, and how long idle ones are kept."""

import time
from concurrent.futures import Future

import pytest
from botocore.exceptions import ClientError
from tests.journeys.conftest import Deploy, MakeServer
from tests.journeys.test_limits_concurrency import HOLDING, statistics
from tests.support.functions import PYTHON, python
from tests.support.server import Function, Reply, TorporServer, eventually, needs_root

STAMPING = python("""
def handler(event, context):
    began = time.time()
    time.sleep(event.get("hold", 0))
    return [event["n"], began]
""")
GREEDY = python("""
def handler(event, context):
    global kept
    kept = bytearray(event.get("mb", 0) << 20)
    time.sleep(event.get("hold", 0))
    return BOOT
""")


def charged(server: TorporServer) -> int:
    found: int = statistics(server)["pool"]["charged_mb"]
    return found


def run_and_hold(function: Function, seconds: float, **event: object) -> Future[Reply]:
    """An invocation that runs by the time this returns."""
    reply = function.start({"hold": seconds, **event})
    eventually(lambda: [entry for entry in function.environments() if entry["pids"]], what="its environment")
    return reply


@needs_root
def test_invocations_wait_for_memory_and_run_in_the_order_they_came(make_server: MakeServer, deploy: Deploy) -> None:
    server = make_server(memory_budget_mb=512, memory_wait=8)
    first, others = deploy(HOLDING, on=server, MemorySize=512), deploy(STAMPING, on=server, MemorySize=512)
    blocking = run_and_hold(first, 1.0)
    waiting = []
    for number in range(3):
        waiting.append(others.start({"n": number, "hold": 0.1}))
        eventually(lambda: statistics(server)["pool"]["waiting"] == len(waiting), what="the request waiting")
    assert statistics(server)["pool"]["charged_mb"] <= 512
    assert not blocking.result().error
    began = [reply.result().payload for reply in waiting]
    assert [number for number, _ in sorted(began, key=lambda one: one[1])] == [0, 1, 2]


@needs_root
def test_invocation_that_finds_no_memory_in_time_is_refused(make_server: MakeServer, deploy: Deploy) -> None:
    server = make_server(memory_budget_mb=300, memory_wait=0.5)
    first, other = deploy(HOLDING, on=server), deploy(HOLDING, on=server)
    blocking = run_and_hold(first, 1.2)
    begun = time.monotonic()
    with pytest.raises(ClientError) as refused:
        other.invoke()
    assert 0.4 < time.monotonic() - begun < 1.5
    assert refused.value.response["Error"]["Code"] == "TooManyRequestsException"
    assert refused.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "1"
    assert not blocking.result().error
    assert not other.invoke().error


def test_function_larger_than_all_memory_is_refused_at_once_or_after_the_wait(
    make_server: MakeServer, deploy: Deploy
) -> None:
    server = make_server(memory_budget_mb=300, memory_wait=0.5)
    with pytest.raises(ClientError, match="TooManyRequestsException"):
        deploy(HOLDING, on=server, MemorySize=1024).invoke()
    assert not deploy(HOLDING, on=server).invoke().error


@needs_root
@pytest.mark.privileged
def test_frozen_environments_are_charged_by_use_under_pressure(make_server: MakeServer, deploy: Deploy) -> None:
    server = make_server(memory_budget_mb=512, memory_wait=2)
    kept, other = deploy(GREEDY, on=server, MemorySize=512), deploy(GREEDY, on=server, MemorySize=256)
    boot = kept.invoke().payload
    kept.wait_until_frozen()
    assert charged(server) == 512
    assert not other.invoke().error
    other.wait_until_frozen()
    assert 256 < charged(server) < 512
    assert len(kept.environments()) == 1
    assert kept.invoke().payload == boot
    assert charged(server) <= 512


@pytest.mark.privileged
def test_idle_environments_of_other_functions_end_at_once_when_memory_is_needed(
    make_server: MakeServer, deploy: Deploy
) -> None:
    server = make_server(memory_budget_mb=512, memory_wait=2)
    oldest, newer, other = (deploy(GREEDY, on=server, MemorySize=256) for _ in range(3))
    for function in (oldest, newer):
        function.invoke({"mb": 150})
        function.wait_until_frozen()
    reply = other.invoke({"mb": 1})
    assert not reply.error
    assert reply.elapsed < 1.5
    eventually(lambda: not oldest.environments(), within=2, what="the end of the oldest")
    assert len(newer.environments()) == 1
    assert charged(server) <= 512


def test_environment_unused_for_the_idle_time_is_ended(make_server: MakeServer, deploy: Deploy) -> None:
    server = make_server(idle_timeout=1)
    function = deploy(HOLDING, on=server)
    boot = function.invoke().payload
    time.sleep(0.6)
    assert function.invoke().payload == boot
    begun = time.monotonic()
    eventually(lambda: not function.environments(), within=4, what="the end of the idle environment")
    assert time.monotonic() - begun > 0.8
    assert function.phases()[-1]["phase"] == "shutdown"
    assert function.invoke().payload != boot
    eventually(lambda: charged(server) == 256, what="the memory of the one that ended given back")


def test_environment_past_its_greatest_age_is_replaced_without_a_failed_call(
    make_server: MakeServer, deploy: Deploy
) -> None:
    server = make_server(max_age=1)
    function = deploy(HOLDING, on=server)
    boots = []
    deadline = time.monotonic() + 2.6
    while time.monotonic() < deadline:
        reply = function.invoke()
        assert not reply.error
        boots.append(reply.payload)
        time.sleep(0.05)
    assert 3 <= len(set(boots)) <= 4


@pytest.mark.privileged
@pytest.mark.parametrize(("setting", "starts", "least", "most"), ((0, 3, 0, 0), (1, 9, 1, 8)))
def test_prepared_sandboxes_follow_the_rate_within_their_bound(
    make_server: MakeServer, deploy: Deploy, setting: int, starts: int, least: int, most: int
) -> None:
    server = make_server(prepared=setting)
    function = deploy(HOLDING, on=server, MemorySize=128)
    replies = [function.start({"hold": 1.0}) for _ in range(starts)]
    assert len({reply.result().payload for reply in replies}) == starts
    time.sleep(1.0)
    prepared = statistics(server)["prepared"].get(PYTHON, 0)
    assert least <= prepared <= most
