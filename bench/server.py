"""A real Torpor server, used through its public API only."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import botocore.session
from botocore.config import Config
from tests.support.emulator import free_port

from bench.emulator import HANDLERS, runtime

ROLE = "arn:aws:iam::000000000000:role/bench"
WHOLE_CPU_MB = 1769
"""Memory size that comes with one whole CPU: the emulator limits none, so neither does the function beside it."""
MANAGED_CPU_MB = 2048
"""The same on managed instances."""
_SERVICES = "/_torpor/services"
_NO_FIELDS: Mapping[str, str] = {}
_READY_WITHIN = 60.0
_STOP_WITHIN = 60.0


class Server:
    """One server process with a data folder of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port
        self.client = _client(port)

    def deploy(
        self,
        name: str,
        handler: str,
        *,
        memory_mb: int = WHOLE_CPU_MB,
        layers: Sequence[str] = (),
        snap_start: str = "",
    ) -> None:
        """Create a function of the bench's handlers and wait until it can be invoked. With `snap_start` it has this
        runtime, and its versions snapshots."""
        self.client.create_function(
            FunctionName=name,
            Runtime=snap_start or runtime()[0],
            Handler=handler,
            Role=ROLE,
            Code={"ZipFile": _package()},
            Timeout=60,
            MemorySize=memory_mb,
            Layers=list(layers),
            SnapStart={"ApplyOn": "PublishedVersions" if snap_start else "None"},
        )
        self.client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})

    def publish(self, name: str) -> str:
        """The number of a new version, once it is active."""
        number = str(self.client.publish_version(FunctionName=name)["Version"])
        self.until(lambda: self._is_active(name, number), f"{name} becoming active")
        return number

    def publish_layer(self, files: Mapping[str, bytes]) -> str:
        """The ARN of a layer with these programs."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as package:
            for path, content in files.items():
                entry = zipfile.ZipInfo(path)
                entry.external_attr = 0o755 << 16
                package.writestr(entry, content)
        made = self.client.publish_layer_version(LayerName="bench", Content={"ZipFile": archive.getvalue()})
        return str(made["LayerVersionArn"])

    def deploy_managed(self, name: str, handler: str, *, runtime: str, workers: int) -> str:
        """Publish a version with one environment on managed instances, with as many CPUs as are here. Its number."""
        client = self.client
        host = client.create_capacity_provider(
            CapacityProviderName="host",
            VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
            PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
        )
        instances = {
            "CapacityProviderArn": host["CapacityProvider"]["CapacityProviderArn"],
            "PerExecutionEnvironmentMaxConcurrency": workers,
        }
        client.create_function(
            FunctionName=name,
            Runtime=runtime,
            Handler=handler,
            Role=ROLE,
            Code={"ZipFile": _package()},
            Timeout=60,
            MemorySize=MANAGED_CPU_MB * len(os.sched_getaffinity(0)),
            CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": instances},
        )
        version = str(client.publish_version(FunctionName=name)["Version"])
        one = {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 1}
        client.put_function_scaling_config(FunctionName=name, Qualifier=version, FunctionScalingConfig=one)
        self.until(lambda: self._is_active(name, version), f"{name} becoming active")
        self.until(lambda: len(self.environments(name)) == 1, f"{name} shrinking to one environment")
        return version

    def _is_active(self, name: str, version: str) -> bool:
        shown = self.client.get_function_configuration(FunctionName=name, Qualifier=version)
        return bool(shown["State"] == "Active")

    def until(self, check: Callable[[], bool], what: str) -> None:
        """Wait for something. Raises RuntimeError if it does not come."""
        deadline = time.monotonic() + _READY_WITHIN
        while not check():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not happen")
            time.sleep(0.02)

    def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str] = _NO_FIELDS) -> Any:
        """One request of the operator or of an API; what JSON answers. Raises RuntimeError with what went wrong."""
        asked = Request(f"http://127.0.0.1:{self.port}{path}", body or None, dict(headers), method=method)
        try:
            with urlopen(asked, timeout=60) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read()[:500]!r}") from error

    def deploy_service(self, name: str, archive: bytes, settings: Mapping[str, Any]) -> None:
        """Deploy a web service's source and wait until it is built. Raises RuntimeError with the output if it fails."""
        headers = {"Content-Type": "application/zip", "X-Torpor-Settings": json.dumps(settings)}
        self.send("PUT", f"{_SERVICES}/{name}", archive, headers)
        self.until(lambda: self._deployment(name)["stage"] in ("succeeded", "failed"), f"the deployment of {name}")
        told = self._deployment(name)
        if told["stage"] == "failed":
            raise RuntimeError(f"{name}: {told['message']} {told['output']}")

    def _deployment(self, name: str) -> dict[str, Any]:
        return dict(self.send("GET", f"{_SERVICES}/{name}/deployment", b""))

    def configure_service(self, name: str, settings: Mapping[str, Any]) -> None:
        """Change a service's settings and keep what was built."""
        body = json.dumps(settings).encode()
        self.send("PUT", f"{_SERVICES}/{name}", body, {"Content-Type": "application/json"})

    def phases(self, function: str) -> list[dict[str, Any]]:
        """What a function's environments went through, oldest first."""
        return list(self._read(f"phases?function={quote(function, safe='')}")["phases"])

    def renew(self, name: str, number: int) -> None:
        """A new revision: no environment made before serves it."""
        self.client.update_function_configuration(FunctionName=name, Environment={"Variables": {"SAMPLE": str(number)}})
        self.client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})

    def remove(self, name: str) -> None:
        """Delete a function with its environments."""
        self.client.delete_function(FunctionName=name)

    def environments(self, function: str = "") -> list[dict[str, Any]]:
        """The live environments as the operator sees them."""
        found = self._read("environments")["environments"]
        return [entry for entry in found if not function or entry["function"].startswith(function)]

    def runtimes(self) -> list[str]:
        """The managed runtimes that it serves."""
        return list(self._read("health")["runtimes"])

    def isolation(self) -> str:
        """The rung of the isolation ladder in use."""
        return str(self._read("statistics")["isolation"])

    def code(self) -> str:
        """What the server runs: `plain Python`, or `compiled` on its hot path."""
        return "compiled" if self._read("statistics")["compiled"] else "plain Python"

    def _read(self, name: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}/_torpor/{name}", timeout=60) as answer:
            return json.load(answer)


@contextmanager
def serving(*flags: str) -> Iterator[Server]:
    """A server that is ready; stopped at the end. Raises RuntimeError with its complaint if it does not start."""
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as folder:
        port, log = free_port(), Path(folder) / "server.log"
        command = [sys.executable, "-m", "torpor", "serve", "--port", str(port), "--data", f"{folder}/data", *flags]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            _wait_until_ready(process, port, log)
            yield Server(process, port)
        finally:
            _stop(process)


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"http://127.0.0.1:{port}/_torpor/health", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace').strip()}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _client(port: int) -> Any:
    session = botocore.session.get_session()
    session.set_config_variable("region", "us-east-1")
    return session.create_client(
        "lambda",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
        config=Config(retries={"max_attempts": 0}, read_timeout=120),
    )


def _package() -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(HANDLERS.glob("*.py")):
            file.write(path, path.name)
    return archive.getvalue()
