"""A real Torpor server, used through its public API only."""

import io
import json
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import botocore.session
from botocore.config import Config

from bench.emulator import HANDLERS, free_port, runtime

WHOLE_CPU_MB = 1769
"""Memory size that comes with one whole CPU: the emulator limits none, so neither does the function beside it."""
_READY_WITHIN = 60.0
_STOP_WITHIN = 60.0


class Server:
    """One server process with a data folder of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port
        self.client = _client(port)

    def deploy(self, name: str, handler: str, *, memory_mb: int = WHOLE_CPU_MB) -> None:
        """Create a function of the bench's handlers and wait until it can be invoked."""
        self.client.create_function(
            FunctionName=name,
            Runtime=runtime()[0],
            Handler=handler,
            Role="arn:aws:iam::000000000000:role/bench",
            Code={"ZipFile": _package()},
            Timeout=60,
            MemorySize=memory_mb,
        )
        self.client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})

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

    def isolation(self) -> str:
        """The rung of the isolation ladder in use."""
        return str(self._read("statistics")["isolation"])

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
