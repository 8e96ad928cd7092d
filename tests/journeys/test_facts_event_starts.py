"""Event functions of Function Compute: the four stages of a start, and what each of them does."""

import base64
import random
import shutil
import statistics
import time
import uuid
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from alibabacloud_fc20230330 import models as v3
from alibabacloud_tea_openapi.exceptions import ClientException
from tests.journeys.conftest import MakeServer
from tests.support.fc import NODE, PYTHON, ComputeFunction, Files, clients, deployed, fc_warnings, node, python, request
from tests.support.functions import archive
from tests.support.server import TorporServer

pytestmark = [
    fc_warnings,
    pytest.mark.skipif(not PYTHON, reason="this host has no Python that event functions can use"),
]

STAGES = ["fetch", "start", "init", "invoke"]
ECHO = python("""
def handler(event, context):
    time.sleep(float(event or 0))
    return BOOT
""")
NODE_ECHO = node("""
exports.handler = (event, context, callback) => callback(null, event);
""")
TALKATIVE = python("""
print("module", flush=True)

def initialize(context):
    time.sleep(0.1)
    print("initializer", flush=True)

def handler(event, context):
    time.sleep(0.3)
    print("handler", flush=True)
""")
INSIDE = python("""
import sys

def handler(event, context):
    given = json.loads(event)
    kept = bytearray(given["mb"] << 20)
    with open("/opt/words.txt") as file:
        words = file.read()
    return {"memory": context.function.memory, "variable": os.environ["GREETING"], "words": words,
            "version": list(sys.version_info[:2]), "kept": len(kept)}
""")
CONFIGURATION = {"runtime": PYTHON, "handler": "index.handler"}
MIB = 1024 * 1024
OLD_LIMIT = 50 * MIB
REQUEST_LIMIT = 100 * MIB
COLD_STARTS = 5


@pytest.fixture(scope="module")
def own(make_server: MakeServer) -> TorporServer:
    """A server of its own, with the older limit of packages."""
    return make_server(fc_max_package=OLD_LIMIT)


@pytest.fixture
def function(server: TorporServer) -> Iterator[ComputeFunction]:
    with deployed(server, ECHO, **CONFIGURATION) as function:
        yield function


def _stages(function: ComputeFunction) -> list[str]:
    return [phase["phase"] for phase in function.phases()]


@pytest.mark.fact("F-025")
def test_cold_call_has_four_stages_in_order_with_a_time_each(function: ComputeFunction) -> None:
    result = function.post(b"0.05")

    phases = function.phases()
    assert [phase["phase"] for phase in phases] == STAGES
    assert all(0 < phase["duration"] < result.elapsed for phase in phases)
    assert all(one["time"] <= other["time"] for one, other in pairwise(phases))
    assert sum(phase["duration"] for phase in phases) <= result.elapsed


@pytest.mark.fact("F-026")
def test_nothing_runs_before_an_event_has_arrived(function: ComputeFunction) -> None:
    time.sleep(3)
    before = (function.environments(), function.phases(), function.lines())
    function.invoke()

    assert before == ([], [], [])
    assert len(function.environments()) == 1


@pytest.mark.fact("F-027")
def test_code_is_fetched_and_unpacked_when_it_is_not_on_the_machine(own: TorporServer) -> None:
    with deployed(own, ECHO, **CONFIGURATION) as function:
        for tree in (own.data / "code" / "trees").iterdir():
            shutil.rmtree(tree)
        first = function.post(b"0")
        both = [function.start(b"1"), function.start(b"1")]
        boots = {future.result().body for future in both}
        fetches = [phase for phase in function.phases() if phase["phase"] == "fetch"]

    assert len(boots) == 2
    assert first.body in boots
    assert [fetch["fetched"] for fetch in fetches] == [True, False]
    assert fetches[0]["duration"] > fetches[1]["duration"] >= 0


@pytest.mark.fact("F-028")
def test_packages_of_more_than_50_mb_are_refused_where_the_older_limit_is_selected(own: TorporServer) -> None:
    with deployed(own, _package_of(OLD_LIMIT - MIB), **CONFIGURATION) as function:
        assert function.invoke().status == 200
    with pytest.raises(ClientException) as refused, deployed(own, _package_of(OLD_LIMIT + MIB), **CONFIGURATION):
        pass

    assert refused.value.code == "EntityTooLarge"
    assert str(OLD_LIMIT) in refused.value.message


@pytest.mark.fact("F-028")
def test_requests_of_more_than_100_mb_are_refused_by_default(server: TorporServer) -> None:
    result = request(server, "POST", "/2023-03-30/functions", b'{"code": {"zipFile": "' + bytes(REQUEST_LIMIT))

    assert (result.status, result.value["Code"]) == (400, "EntityTooLarge")
    assert str(REQUEST_LIMIT) in result.value["Message"]


def _package_of(size: int) -> Files:
    """A package of about this many bytes; noise does not become smaller."""
    return {**ECHO, "noise": random.Random(1).randbytes(size)}


@pytest.mark.fact("F-029")
@pytest.mark.privileged
def test_environment_is_as_the_configuration_says(server: TorporServer) -> None:
    layer = _layer(server, {"words.txt": "from a layer"})
    given: dict[str, Any] = {"memorySize": 192, "environmentVariables": {"GREETING": "hello"}, "layers": [layer]}
    with deployed(server, INSIDE, **CONFIGURATION, **given) as function:
        told = function.invoke({"mb": 1}).value
        too_much = function.invoke({"mb": 400})

    assert told == {"memory": 192, "variable": "hello", "words": "from a layer", "kept": MIB,
                    "version": [int(part) for part in PYTHON.removeprefix("python").split(".")]}  # fmt: skip
    assert too_much.error == "UnhandledInvocationError"
    assert "(duration: 0ms" not in too_much.value["errorMessage"]


def _layer(server: TorporServer, files: Files) -> str:
    client, _ = clients(server)
    code = v3.InputCodeLocation(zip_file=base64.b64encode(archive(files)).decode())
    given = v3.CreateLayerVersionInput(code=code, compatible_runtime=[PYTHON])
    name = f"layer-{uuid.uuid4().hex[:8]}"
    made = client.create_layer_version(name, v3.CreateLayerVersionRequest(body=given))
    return str(made.body.layer_version_arn)


@pytest.fixture
def talkative(server: TorporServer) -> Iterator[ComputeFunction]:
    """A function with code outside its handler and an initializer, both of which tell when they run."""
    hooks = {"initializer": {"handler": "index.initialize", "timeout": 10}}
    with deployed(server, TALKATIVE, **CONFIGURATION, instanceLifecycleConfig=hooks) as function:
        yield function


def _told(function: ComputeFunction) -> list[str]:
    return [line for line in function.lines() if line in ("module", "initializer", "handler")]


@pytest.mark.fact("F-030")
def test_code_outside_the_handler_and_the_initializer_run_once_before_it(talkative: ComputeFunction) -> None:
    for _ in range(2):
        assert talkative.invoke().error == ""

    (init,) = [phase for phase in talkative.phases() if phase["phase"] == "init"]
    assert _told(talkative) == ["module", "initializer", "handler", "handler"]
    assert init["duration"] >= 0.1


@pytest.mark.fact("F-031")
def test_handler_runs_last_and_its_time_is_the_stages(talkative: ComputeFunction) -> None:
    result = talkative.invoke()

    (run,) = talkative.runs()
    assert _told(talkative)[-1] == "handler"
    assert 0.3 <= run["duration"] < 0.4
    assert result.elapsed >= run["duration"] + 0.1


@pytest.mark.fact("F-032")
def test_first_call_has_all_stages_and_is_cold_and_the_second_only_the_last_and_is_warm(
    function: ComputeFunction,
) -> None:
    function.invoke()
    first = _stages(function)
    function.invoke()
    second = _stages(function)[len(first) :]

    assert (first, second) == (STAGES, ["invoke"])
    assert [run["cold"] for run in function.runs()] == [True, False]


@pytest.mark.fact("F-033")
@pytest.mark.parametrize(("runtime", "files"), [(PYTHON, ECHO), (NODE, NODE_ECHO)], ids=["python", "node"])
def test_cold_start_takes_less_than_a_second(server: TorporServer, runtime: str, files: Files) -> None:
    if runtime == NODE and shutil.which("node") is None:
        pytest.skip("this host has no Node.js")
    with deployed(server, files, runtime=runtime, handler="index.handler") as function:
        taken = []
        for _ in range(COLD_STARTS):
            taken.append(function.post(b"0").elapsed)
            function.recycle()

        assert [run["cold"] for run in function.runs()] == [True] * COLD_STARTS
    assert statistics.median(taken) < 1
