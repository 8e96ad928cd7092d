"""Managed instances whose workers break the rules: each call has one answer, and nothing spins or piles up."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.journeys.conftest import MakeServer
from tests.support.functions import PROVIDED, Package, archive, python
from tests.support.managed import Called, ManagedFunction, managed, provider
from tests.support.remains import memory_of
from tests.support.server import ROLE, TorporServer, eventually
from tests.support.web_services import cpu_seconds

pytestmark = pytest.mark.privileged
MIB = 1 << 20
RUNTIME = r"""#!/usr/bin/env python3
import http.client, json, os, socket, sys, threading, time, uuid

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
BOOT = uuid.uuid4().hex
KNOWN = []


def call(connection, method, path, body=None):
    connection.request(method, "/2018-06-01/runtime/" + path, body)
    answer = connection.getresponse()
    return answer, answer.read()


def tell(answer):
    print("told", answer[0].status, answer[1].decode(), flush=True)


def work():
    connection = http.client.HTTPConnection(API)
    while True:
        answer, body = call(connection, "GET", "invocation/next")
        event, id = json.loads(body), answer.headers["Lambda-Runtime-Aws-Request-Id"]
        KNOWN.append(id)
        scope = {**globals(), "connection": connection, "id": id, "event": event, "result": BOOT}
        exec(event.get("code", ""), scope)
        if not event.get("silent"):
            call(connection, "POST", f"invocation/{id}/response", json.dumps(scope["result"]))


BEFORE
for _ in range(int(os.environ["AWS_LAMBDA_MAX_CONCURRENCY"]) - 1):
    threading.Thread(target=work).start()
work()
"""


def runtime(before: str = "") -> Package:
    """Workers that do what events say in `code`, before they answer with `result`."""
    return Package(
        archive=archive({"bootstrap": RUNTIME.replace("BEFORE", before)}), runtime=PROVIDED, handler="unused"
    )


@pytest.fixture(scope="module")
def four(server: TorporServer) -> Iterator[ManagedFunction]:
    with managed(server, runtime(), concurrency=4, Timeout=2) as function:
        yield function


def told(function: ManagedFunction, since: int) -> list[tuple[int, Any]]:
    lines = [line.split(" ", 2) for line in function.lines()[since:] if line.startswith("told ")]
    return [(int(status), json.loads(body) if body.startswith("{") else body) for _, status, body in lines]


def test_a_second_answer_is_refused_and_goes_to_nobody(four: ManagedFunction) -> None:
    boot, seen = four.call().payload, len(four.lines())
    code = """
for text in ('"first"', '"second"'):
    tell(call(connection, "POST", f"invocation/{id}/response", text))
tell(call(connection, "POST", f"invocation/{id}/error", "{}"))
"""
    assert four.call({"code": code, "silent": True}).payload == "first"
    answers = eventually(lambda: len(found := told(four, seen)) == 3 and found)
    assert [status for status, _ in answers] == [202, 400, 400]
    assert four.call().payload == boot


def test_a_late_answer_is_told_so_and_its_worker_goes_on(four: ManagedFunction) -> None:
    boot, seen = four.call().payload, len(four.lines())
    late = "time.sleep(3); tell(call(connection, 'POST', f'invocation/{id}/response', '1'))"

    results = four.together(*[{"code": late, "silent": True}] * 4)

    assert all(result.error for result in results)
    assert all("timed out" in json.dumps(result.payload).lower() for result in results)
    answers = eventually(lambda: len(found := told(four, seen)) == 4 and found)
    assert {status for status, _ in answers} == {410}
    assert four.call().payload == boot


def test_answers_for_calls_of_others_reach_nobody(four: ManagedFunction) -> None:
    boot, seen = four.call().payload, len(four.lines())
    code = """
for other in ("x", "../../next", str(uuid.uuid4()), KNOWN[0]):
    tell(call(http.client.HTTPConnection(API), "POST", f"invocation/{other}/response", '"stolen"'))
"""
    assert four.call({"code": code}).payload == boot
    answers = eventually(lambda: len(found := told(four, seen)) == 4 and found)
    assert all(status in (400, 404) for status, _ in answers)


FLOOD = """
def flood(number, requests):
    line = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
    host, _, port = API.partition(":")
    kept = []
    for _ in range(number):
        peer = socket.create_connection((host, int(port)))
        peer.setblocking(False)
        try:
            peer.sendall(line * requests)
        except OSError:
            pass
        kept.append(peer)
    time.sleep(1)
    for peer in kept:
        peer.close()
"""


@pytest.mark.parametrize(("connections", "each"), [(1, 10_000), (500, 1), (40, 250)])
def test_a_flood_of_requests_for_work_is_bounded_and_over_when_it_is(
    server: TorporServer, connections: int, each: int
) -> None:
    with managed(server, runtime(FLOOD), concurrency=4, Timeout=3) as function:
        boot, before = function.call().payload, memory_of(server.process.pid)
        running = function.begin({"code": f"flood({connections}, {each})"})
        largest = before
        while not running.done():
            largest = max(largest, memory_of(server.process.pid))
            time.sleep(0.02)
        assert not running.result().error
        assert largest - before < 32 * MIB
        eventually(lambda: function.call().payload == boot, what="calls being served as before")
        if each < 1_000:  # the server cannot see the end of a connection behind what it does not read
            assert [result.payload for result in function.together({}, {}, {}, {})] == [boot] * 4


def test_workers_that_never_return_time_out_one_by_one_and_a_full_house_is_told(server: TorporServer) -> None:
    with managed(server, runtime(), concurrency=2, Timeout=1) as function:
        stuck = function.together(*[{"code": "time.sleep(30)"}] * 2)
        assert all("timed out" in json.dumps(result.payload).lower() for result in stuck)
        refused = function.call()
        assert refused.error in ("TooManyRequestsException", "Unhandled") or refused.payload


def test_workers_that_die_one_by_one_fail_their_own_calls_and_are_replaced_in_the_end(server: TorporServer) -> None:
    source = """
    def handler(event, context):
        if event.get("die"):
            os._exit(3)
        return BOOT
    """
    if "python3.13" not in server.runtimes:
        pytest.skip("this host has no interpreter for python3.13")
    with managed(server, python(source, runtime="python3.13"), concurrency=4) as function:
        assert not function.call().error
        for _ in range(4):
            assert function.call({"die": True}).error

        def serves() -> bool:
            return not function.call().error

        eventually(serves, within=20, what="calls being served again")
        for _ in range(4):
            assert serves()


def test_an_init_error_of_all_workers_is_the_versions_state_and_reason(server: TorporServer) -> None:
    before = """
for _ in range(4):
    call(http.client.HTTPConnection(API), "POST", "init/error", '{"errorType": "Mine", "errorMessage": "no luck"}')
sys.exit(1)
"""
    with managed(server, runtime(before), wait=False) as function:
        shown = eventually(
            lambda: shown if (shown := configuration(function))["State"] == "Failed" else None, within=20
        )
        assert "no luck" in json.dumps(shown) or "Mine" in json.dumps(shown)
        assert function.call().error
        calm(server)


def configuration(function: ManagedFunction) -> Any:
    return function.server.client.get_function_configuration(FunctionName=function.name, Qualifier=function.version)


def calm(server: TorporServer) -> None:
    """Fail if the server itself is busy though nothing happens."""
    used = cpu_seconds([server.process.pid])
    time.sleep(2)
    assert cpu_seconds([server.process.pid]) - used < 1.0


def test_a_host_too_small_for_the_minimum_says_so_and_rests(make_server: MakeServer) -> None:
    server = make_server(memory_budget_mb=3000)
    with managed(server, runtime(), minimum=3, maximum=3, wait=False) as function:
        shown = eventually(
            lambda: shown if (shown := configuration(function))["State"] == "Failed" else None, within=20
        )
        assert "memory" in shown["StateReason"].lower()
        calm(server)
        assert len(function.environments()) <= 1
        function.scale(1, 1)
        eventually(lambda: not function.call().error, within=20, what="the smaller minimum being served")


@pytest.mark.parametrize(("minimum", "maximum"), [(3, 1), (0, 100_000)])
def test_bounds_that_cannot_be_are_refused(four: ManagedFunction, minimum: int, maximum: int) -> None:
    with pytest.raises(ClientError) as refused:
        four.scale(minimum, maximum)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert not four.call().error


def test_a_version_scaled_to_nothing_refuses_clearly_and_comes_back(server: TorporServer) -> None:
    with managed(server, runtime(), concurrency=4) as function:
        assert not function.call().error
        function.scale(0, 0)
        eventually(lambda: not function.environments(), what="the environments ending")
        refused = function.call()
        assert refused.error not in ("", "ServiceException")
        calm(server)
        function.scale(1, 1)
        eventually(lambda: not function.call().error, within=20, what="calls being served again")


def test_a_provider_in_use_is_not_deleted(four: ManagedFunction) -> None:
    with pytest.raises(ClientError) as refused:
        four.server.client.delete_capacity_provider(CapacityProviderName="host")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 409)
    assert refused.value.response["Error"]["Message"]
    assert not four.call().error


def test_a_provider_that_is_not_there_is_told(server: TorporServer) -> None:
    arn = provider(server).replace(":host", ":nowhere")
    instances = {"CapacityProviderArn": arn, "PerExecutionEnvironmentMaxConcurrency": 2}
    with pytest.raises(ClientError) as refused:
        server.client.create_function(
            FunctionName="homeless", Role=ROLE, Runtime=PROVIDED, Handler="x", MemorySize=2048,
            Code={"ZipFile": runtime().archive},
            CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": instances},
        )  # fmt: skip
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 404)
    assert "nowhere" in refused.value.response["Error"]["Message"]


EXTENSION = r"""#!/usr/bin/env python3
import http.client, json, os, time
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
connection.request("POST", "/2020-01-01/extension/register", json.dumps({"events": ["INVOKE", "SHUTDOWN"]}),
                   {"Lambda-Extension-Name": "greedy"})
answer = connection.getresponse()
print("told", answer.status, answer.read().decode(), flush=True)
time.sleep(1)
"""


def test_an_extension_that_wants_invocations_is_refused(server: TorporServer) -> None:
    files = {"bootstrap": RUNTIME.replace("BEFORE", ""), "extensions/greedy": EXTENSION}
    package = Package(archive=archive({"bootstrap": files["bootstrap"]}), runtime=PROVIDED, handler="unused")
    layer = server.client.publish_layer_version(
        LayerName="greedy", Content={"ZipFile": archive({"extensions/greedy": EXTENSION})}
    )
    with managed(server, package, wait=False, Layers=[layer["LayerVersionArn"]]) as function:
        answers = eventually(lambda: told(function, 0), within=20)
        assert answers[0][0] in (400, 403)
        eventually(lambda: configuration(function)["State"] == "Failed", within=20)
        calm(server)


def test_calls_while_a_version_is_deleted_all_end(server: TorporServer) -> None:
    with managed(server, runtime(), concurrency=4) as function:
        running = [function.begin({"code": "time.sleep(1)"}) for _ in range(4)]
        time.sleep(0.3)
    results: list[Called] = [one.result() for one in running]

    assert all(not result.error for result in results), results
    eventually(lambda: not server.environments(function.name), what="the environments ending")
