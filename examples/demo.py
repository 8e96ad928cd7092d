"""Torpor in half a minute: start a server, deploy functions and a service in all four serving styles, run each cold and
warm, follow an asynchronous event to its destination, stop.

Everything goes through the public APIs; only the phase times come from a route of the server's own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from demo_events import WAIT_SCALE, asynchronous
from demo_styles import Skipped, function_compute, managed_instances, package, web_service

from torpor.cli.guessing import newest

START_WITHIN = 60.0
STOP_WITHIN = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One function to show."""

    folder: str
    language: str
    handler: str
    payload: dict[str, Any]


EXAMPLE_FUNCTIONS = (
    Example(folder="hello-python", language="python", handler="app.handler", payload={"name": "Ada"}),
    Example(folder="hello-nodejs", language="nodejs", handler="index.handler", payload={"name": "Grace"}),
    Example(folder="hello-provided", language="provided.al2023", handler="bootstrap", payload={"name": "Edsger"}),
)


class Trouble(Exception):
    """The demonstration cannot go on; the message says why."""


def main() -> int:
    """Run the demonstration; 0 if every function answered."""
    try:
        with tempfile.TemporaryDirectory(prefix="torpor-demo-") as folder, _server(Path(folder)) as url:
            return _show(url)
    except (Trouble, ClientError, BotoCoreError, URLError) as error:
        print(f"The demonstration failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _show(url: str) -> int:
    runtimes = _runtimes(url)
    client = _client(url)
    deployed = []
    for example in EXAMPLE_FUNCTIONS:
        runtime = newest(example.language, runtimes)
        if runtime:
            _deploy(client, example, runtime)
            deployed.append((example, runtime))
        else:
            reason = f"no {example.language} runtime is usable here; `torpor doctor` says more"
            print(f"\n{example.folder}: skipped, {reason}.")
    for example, runtime in deployed:
        print(f"\n{example.folder}  ({runtime}, examples/{example.folder})")
        for temperature in ("cold", "warm"):
            _invoke(client, example, temperature)
        _print_phases(url, example.folder)
    shown = len(deployed) + _show_other_styles(url, client, runtimes)
    print(f"\n{shown} functions and services ran. Yours next: `make serve`, then `.venv/bin/torpor deploy PATH`.")
    return 0 if deployed else 1


def _show_other_styles(url: str, client: Any, runtimes: list[str]) -> int:
    """How many functions and services ran."""
    shown = 0
    for count, show in (
        (1, lambda: managed_instances(client, runtimes)),
        (2, lambda: function_compute(url, runtimes)),
        (1, lambda: web_service(url)),
        (2, lambda: asynchronous(url, client, runtimes)),
    ):
        try:
            show()
            shown += count
        except Skipped as reason:
            print(f"\nSkipped: {reason}.")
    return shown


def _deploy(client: Any, example: Example, runtime: str) -> None:
    name = example.folder
    client.create_function(
        FunctionName=name,
        Runtime=runtime,
        Handler=example.handler,
        Role="arn:aws:iam::000000000000:role/demo",
        Code={"ZipFile": package(name)},
        Timeout=10,
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def _invoke(client: Any, example: Example, temperature: str) -> None:
    began = time.perf_counter()
    answer = client.invoke(FunctionName=example.folder, Payload=json.dumps(example.payload).encode(), LogType="Tail")
    payload = answer["Payload"].read().decode()
    took = (time.perf_counter() - began) * 1000
    print(f"  {temperature}  {took:7.1f} ms  {payload}")
    for line in b64decode(answer.get("LogResult", "")).decode(errors="replace").splitlines():
        print(f"        | {line.replace(chr(9), '  ').rstrip()}")
    if "FunctionError" in answer:
        raise Trouble(f"{example.folder} answered with an error: {payload}")


def _print_phases(url: str, name: str) -> None:
    phases = _read(f"{url}/_torpor/phases?function={name}")["phases"]
    parts = [text for entry in phases if (text := _phase_text(entry))]
    if parts:
        print("  phases: " + ", ".join(parts))


def _phase_text(entry: dict[str, Any]) -> str:
    name = entry.get("phase") or entry.get("name") or entry.get("kind")
    seconds = entry.get("duration")
    return f"{name} {seconds * 1000:.1f} ms" if name and seconds is not None else ""


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "torpor", "serve", "--port", str(port), "--data", str(folder / "data")]
    command += ["--event-wait-scale", WAIT_SCALE]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TORPOR_")}
    log = folder / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors, env=environment, cwd=folder)
        try:
            _wait_until_ready(process, url, log)
            yield url
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Trouble(f"the server did not start: {log.read_text(errors='replace').strip()}")
        try:
            _read(f"{url}/_torpor/health")
            return
        except OSError:
            time.sleep(0.05)
    raise Trouble(f"the server was not ready within {START_WITHIN:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _client(url: str) -> Any:
    session = botocore.session.get_session()
    session.set_config_variable("region", "us-east-1")
    return session.create_client(
        "lambda",
        endpoint_url=url,
        aws_access_key_id="demo",
        aws_secret_access_key="demo",
        config=Config(retries={"max_attempts": 0}, read_timeout=120),
    )


def _runtimes(url: str) -> list[str]:
    runtimes: list[str] = _read(f"{url}/_torpor/health")["runtimes"]
    return runtimes


def _read(url: str) -> Any:
    with urlopen(url, timeout=30) as answer:
        return json.load(answer)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
