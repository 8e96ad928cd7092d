"""What an execution environment is: isolated, sized as configured, spoken to over the Runtime API."""

import os
import shutil
import time
from pathlib import Path

import pytest
from tests.journeys.conftest import Deploy
from tests.support.functions import python, shell
from tests.support.server import Function, TorporServer, eventually, needs_root

LOOKER = """
import http.client, pathlib, subprocess, sys

API = os.environ["AWS_LAMBDA_RUNTIME_API"]

def parents():
    found, pid = [], os.getpid()
    while os.path.exists(f"/proc/{pid}/stat"):
        found.append(pid)
        pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found

def reads(path):
    try:
        return len(pathlib.Path(path).read_bytes()) >= 0
    except OSError:
        return False

def answers_for(event):
    connection = http.client.HTTPConnection(event["api"], timeout=2)
    try:
        connection.request("POST", f"/2018-06-01/runtime/invocation/{event['id']}/response", '"stolen"')
        return connection.getresponse().status
    except OSError as error:
        return type(error).__name__

def connects(address):
    import socket
    try:
        socket.create_connection(address, timeout=2).close()
        return True
    except OSError:
        return False

def handler(event, context):
    if "hold" in event:
        pathlib.Path("/tmp/" + event["marker"]).write_text("x")
        command = [sys.executable, "-c", "import time; time.sleep(30)", event["marker"]]
        child = subprocess.Popen(command)
        print("held", context.aws_request_id, API, flush=True)
        time.sleep(event["hold"])
        child.kill()
        child.wait()
        return {"answer": event["marker"]}
    seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return {
        "strangers": sorted(set(seen) - set(parents())),
        "commands": [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in seen],
        "marker": os.path.exists("/tmp/" + event["marker"]),
        "read": [path for path in event["paths"] if reads(path)],
        "other_api": answers_for(event),
        "host_ports": [port for port in event["ports"] if connects(("127.0.0.1", port))],
    }
"""


def _held(function: Function) -> dict[str, str]:
    """Request id and Runtime API address of the invocation that is held in a function."""
    lines = eventually(lambda: [line.split() for line in function.lines() if line.startswith("held ")])
    return {"id": lines[0][1], "api": lines[0][2]}


def _host_files(server: TorporServer) -> list[str]:
    home = Path.home()
    inside_home = [str(path) for path in home.iterdir() if path.is_file()][:20]
    return [*inside_home, str(server.data / "torpor.db"), str(server.data / "lock"), __file__, "/etc/shadow"]


@needs_root
@pytest.mark.fact("L-001")
@pytest.mark.privileged
def test_two_functions_side_by_side_see_nothing_of_each_other_or_the_host(server: TorporServer, deploy: Deploy) -> None:
    first, second = deploy(python(LOOKER)), deploy(python(LOOKER))
    held = {function: function.start({"hold": 3, "marker": f"marker-{function.name}"}) for function in (first, second)}
    port = int(server.url.rpartition(":")[2])
    paths = _host_files(server)

    for function, other in ((first, second), (second, first)):
        looked = {"marker": f"marker-{other.name}", "paths": paths, "ports": [port], **_held(other)}
        found = function.invoke(looked).payload

        assert found["strangers"] == []
        assert not any(other.name in command for command in found["commands"])
        assert found["marker"] is False
        assert found["read"] == []
        assert found["other_api"] not in (200, 202), "it answered the other function's invocation"
        assert found["host_ports"] == []
    for function, reply in held.items():
        assert reply.result().payload == {"answer": f"marker-{function.name}"}


@needs_root
@pytest.mark.fact("L-002")
@pytest.mark.privileged
def test_memory_size_is_what_the_environment_has(deploy: Deploy) -> None:
    function = deploy(
        python("""
        def handler(event, context):
            block = bytearray(event.get("mb", 0) << 20)
            return {"memory": os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"], "size": len(block)}
        """),
        MemorySize=256,
    )

    small, large = function.invoke(), function.invoke({"mb": 400})

    assert small.payload["memory"] == "256"
    assert "\tMemory Size: 256 MB\t" in small.report
    assert large.error == "Unhandled"
    assert large.payload["errorType"] == "Runtime.ExitError"
    assert large.payload["errorMessage"].endswith("Runtime exited with error: signal: killed")
    assert "\tMax Memory Used: 256 MB\t" in large.report


@pytest.mark.fact("L-003")
def test_timeout_is_what_the_environment_has(deploy: Deploy) -> None:
    function = deploy(
        python("""
        def handler(event, context):
            left = context.get_remaining_time_in_millis()
            time.sleep(event.get("sleep", 0))
            return left
        """),
        Timeout=7,
    )
    long = function.start({"sleep": 9})

    assert 6_500 < function.invoke().payload <= 7_000
    assert 6.9 < long.result().elapsed < 8.9
    assert long.result().error == "Unhandled"
    assert long.result().payload["errorMessage"].endswith("Task timed out after 7.00 seconds")


@pytest.mark.fact("L-004")
def test_runtime_that_only_speaks_the_runtime_api_is_served(deploy: Deploy) -> None:
    function = deploy(shell('while next; do respond "{\\"echo\\":$event}"; done'))

    replies = [function.invoke({"number": number}) for number in range(3)]

    assert [reply.payload for reply in replies] == [{"echo": {"number": number}} for number in range(3)]
    assert [reply.error for reply in replies] == [""] * 3


@pytest.mark.fact("L-017")
@pytest.mark.privileged
def test_runtime_is_booted_once_for_several_invocations(deploy: Deploy) -> None:
    function = deploy(shell('echo booted >> /tmp/boots\nwhile next; do respond "$(grep -c booted /tmp/boots)"; done'))

    assert [function.invoke().payload for _ in range(3)] == [1, 1, 1]


@pytest.mark.fact("L-018")
def test_static_code_runs_once_before_the_first_event(deploy: Deploy) -> None:
    function = deploy(
        python("""
        print("loaded", flush=True)
        def handler(event, context):
            print("handled", flush=True)
        """)
    )

    for _ in range(2):
        function.invoke()

    words = [line.split()[0] for line in function.lines()]
    assert [word for word in words if word in ("loaded", "START", "handled")] == [
        *("loaded", "START", "handled"),
        *("START", "handled"),
    ]


@pytest.mark.fact("L-034")
def test_invocation_is_the_answer_to_the_runtimes_request_for_it(deploy: Deploy) -> None:
    function = deploy(
        shell("""
        while true; do
          echo "asked $(date +%s.%N)"
          next
          echo "answered $(date +%s.%N) $status $id $event"
          respond '"ok"'
        done
        """)
    )
    function.invoke({"number": 1})
    frozen = function.wait_until_frozen()
    time.sleep(1.0)

    second = function.invoke({"number": 2})

    asked = [float(line.split()[1]) for line in function.lines() if line.startswith("asked ")]
    answered = [line.split(maxsplit=4) for line in function.lines() if line.startswith("answered ")]
    assert asked[1] < frozen < second.sent <= float(answered[1][1]) <= second.received
    assert answered[1][2:] == ["200", second.request_id, '{"number": 2}']


@pytest.mark.fact("L-077")
def test_tmp_size_is_from_512_to_10240_in_whole_megabytes(server: TorporServer, deploy: Deploy) -> None:
    package = python("def handler(event, context): pass")
    client = server.new_client(parameter_validation=False)
    for size in (512, 513, 10_240):
        function = deploy(package, EphemeralStorage={"Size": size})
        assert function.configuration()["EphemeralStorage"] == {"Size": size}

    function = deploy(package)
    assert function.configuration()["EphemeralStorage"] == {"Size": 512}
    for size in (511, 10_241):
        with pytest.raises(client.exceptions.ClientError) as refused:
            client.update_function_configuration(FunctionName=function.name, EphemeralStorage={"Size": size})
        assert refused.value.response["Error"]["Code"] in ("ValidationException", "InvalidParameterValueException")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert function.configuration()["EphemeralStorage"] == {"Size": 512}


@pytest.mark.fact("L-078")
@pytest.mark.privileged
def test_tmp_size_is_there_and_is_the_limit(server: TorporServer, deploy: Deploy) -> None:
    if shutil.disk_usage(server.data).free < 3 << 30:
        pytest.skip("less than 3 GB are free on the disk")
    function = deploy(
        python("""
        def handler(event, context):
            block = os.urandom(1 << 20)
            try:
                with open("/tmp/file", "wb") as file:
                    for _ in range(event["mb"]):
                        file.write(block)
                return "written"
            except OSError as error:
                return error.strerror
            finally:
                time.sleep(event.get("hold", 0))
        """),
        EphemeralStorage={"Size": 600},
        MemorySize=512,
        Timeout=60,
    )

    assert function.invoke({"mb": 590}).payload == "written"
    full = function.start({"mb": 610, "hold": 3})
    eventually(lambda: [entry for entry in function.environments() if entry["phase"] == "serving"])
    assert function.invoke({"mb": 20}).payload == "written"
    assert full.result().payload == os.strerror(28) == "No space left on device"
    assert len(function.environments()) == 2
