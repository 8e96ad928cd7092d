"""The other three serving styles: managed instances, Function Compute, web services."""

import base64
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from torpor.cli.guessing import newest
from torpor.cli.packing import archive_of

EXAMPLES = Path(__file__).parent
_MIB = 1024 * 1024
_ROLE = "arn:aws:iam::000000000000:role/demo"
_WORKERS = 4
_MANAGED_FROM = (3, 13)


class Skipped(Exception):
    """This style cannot be shown here; the message says why."""


def package(folder: str) -> bytes:
    """An example as it is uploaded."""
    return archive_of(EXAMPLES / folder, packed_limit=50 * _MIB, unpacked_limit=250 * _MIB)


def managed_instances(client: Any, runtimes: list[str]) -> None:
    """One environment, several workers, as many calls at once."""
    runtime = newest("python", runtimes)
    if not runtime or _version(runtime) < _MANAGED_FROM:
        raise Skipped("managed instances run Python 3.13 and later, which is not here")
    print(f"\nmanaged-python  (managed instances, {runtime}, {_WORKERS} workers)")
    _publish(client, runtime)
    _wait_until_active(client)
    with ThreadPoolExecutor(_WORKERS) as callers:
        began = time.perf_counter()
        answers = [json.loads(answer) for answer in callers.map(lambda _: _call_managed(client), range(_WORKERS))]
        took = (time.perf_counter() - began) * 1000
    print(f"  {_WORKERS} calls of 200 ms at once: {took:.1f} ms")
    for answer in answers:
        print(f"        | worker {answer['worker']}, call {answer['calls']}")
    client.delete_function(FunctionName="managed-python")


def _publish(client: Any, runtime: str) -> None:
    provider = client.create_capacity_provider(
        CapacityProviderName="this-host",
        VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        PermissionsConfig={"CapacityProviderOperatorRoleArn": _ROLE},
    )["CapacityProvider"]["CapacityProviderArn"]
    instances = {"CapacityProviderArn": provider, "PerExecutionEnvironmentMaxConcurrency": _WORKERS}
    client.create_function(
        FunctionName="managed-python",
        Runtime=runtime,
        Handler="app.handler",
        Role=_ROLE,
        Code={"ZipFile": package("managed-python")},
        MemorySize=2048,
        CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": instances},
    )
    client.publish_version(FunctionName="managed-python")
    bounds = {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1}
    client.put_function_scaling_config(FunctionName="managed-python", Qualifier="1", FunctionScalingConfig=bounds)


def _wait_until_active(client: Any) -> None:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        shown = client.get_function_configuration(FunctionName="managed-python", Qualifier="1")
        if shown["State"] == "Active":
            time.sleep(0.3)  # the other workers are a moment behind the first
            return
        if shown["State"] == "Failed":
            raise Skipped(f"the environments could not be started: {shown.get('StateReason')}")
        time.sleep(0.05)
    raise Skipped("the environments were not up within a minute")


def _call_managed(client: Any) -> bytes:
    event = json.dumps({"seconds": 0.2}).encode()
    answer: bytes = client.invoke(FunctionName="managed-python", Qualifier="1", Payload=event)["Payload"].read()
    return answer


def function_compute(url: str, runtimes: list[str]) -> None:
    """An event function and a server of the function's own, over the API of the third generation."""
    runtime = newest("python", runtimes)
    if not runtime:
        raise Skipped("there is no Python runtime here")
    _create_event_function(url, runtime)
    print(f"\nfc-event  (Function Compute, {runtime}, examples/fc-event)")
    _invoke_twice(url, "fc-event", b'{"name": "Barbara"}')
    _create_server(url)
    print("\nfc-server  (Function Compute, custom, examples/fc-server)")
    _invoke_twice(url, "fc-server", b"some bytes")


def _create_event_function(url: str, runtime: str) -> None:
    _create(url, {"functionName": "fc-event", "runtime": runtime, "handler": "index.handler"}, "fc-event")


def _create_server(url: str) -> None:
    server = {"command": ["python"], "args": ["server.py"], "port": 9000}
    _create(
        url,
        {"functionName": "fc-server", "runtime": "custom", "handler": "-", "customRuntimeConfig": server},
        "fc-server",
    )


def _create(url: str, function: dict[str, Any], folder: str) -> None:
    code = {"zipFile": base64.b64encode(package(folder)).decode()}
    body = json.dumps({**function, "memorySize": 256, "timeout": 10, "code": code}).encode()
    _send(f"{url}/2023-03-30/functions", body)


def _invoke_twice(url: str, name: str, event: bytes) -> None:
    for temperature in ("cold", "warm"):
        began = time.perf_counter()
        answer = _send(f"{url}/2023-03-30/functions/{name}/invocations", event)
        took = (time.perf_counter() - began) * 1000
        print(f"  {temperature}  {took:7.1f} ms  {answer.decode()}")
    with urlopen(f"{url}/_torpor/phases?function=fc/{name}", timeout=30) as shown:
        phases = json.load(shown)["phases"]
    print("  stages: " + ", ".join(f"{entry['phase']} {entry['duration'] * 1000:.1f} ms" for entry in phases))


def web_service(url: str) -> None:
    """A folder of files behind an unmodified server, deployed with the command line."""
    print("\nweb-static  (web service, examples/web-static)")
    folder = str(EXAMPLES / "web-static")
    command = [sys.executable, "-m", "torpor", "deploy", "--web", folder, "--endpoint", url]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print("".join(f"        | {line}\n" for line in done.stdout.splitlines()), end="")
    if done.returncode:
        raise Skipped("the service could not be deployed")
    for temperature in ("cold", "warm"):
        began = time.perf_counter()
        with urlopen(f"{url}/services/web-static/", timeout=60) as answer:
            size = len(answer.read())
        print(f"  {temperature}  {(time.perf_counter() - began) * 1000:7.1f} ms  a page of {size} bytes")


def _send(url: str, body: bytes) -> bytes:
    request = Request(url, data=body, headers={"Content-Type": "application/octet-stream"}, method="POST")
    try:
        with urlopen(request, timeout=60) as answer:
            told: bytes = answer.read()
            return told
    except HTTPError as error:
        raise Skipped(f"the server refused: {error.read().decode(errors='replace')}") from error


def _version(runtime: str) -> tuple[int, ...]:
    return tuple(int(part) for part in runtime.removeprefix("python").split("."))
