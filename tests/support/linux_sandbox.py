"""Real sandboxes for tests: a provider in folders of its own, shell scripts and cloned Python functions inside."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tests.support.listener import RecordingListener
from tests.support.runtime_api import FUNCTION_ARN, VARIABLES
from tests.support.sandboxes import BASIC_ENVIRONMENT, linux_refused

from torpor.sandbox.images import DEFAULT_ROOT, ImageCatalog
from torpor.sandbox.interpreters import discover
from torpor.sandbox.linux import LinuxProvider
from torpor.sandbox.linux.sandbox import LinuxSandbox
from torpor.sandbox.port import ProcessSpec, SandboxSpec

PYTHON = f"python3.{sys.version_info.minor}"
PROVIDED = "provided.al2023"
_REPLY = (
    "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: 1\r\nLambda-Runtime-Deadline-Ms: 9999999999999\r\n"
    f"Lambda-Runtime-Invoked-Function-Arn: {FUNCTION_ARN}\r\nContent-Type: application/json\r\n"
    "Content-Length: 2\r\n\r\n{}"
)


@lru_cache
def images() -> ImageCatalog:
    """The runtimes of this host."""
    return ImageCatalog(DEFAULT_ROOT, discover())


@contextmanager
def places() -> Iterator[Path]:
    """A folder with `code` and `state` below; other users can pass through to the code."""
    with TemporaryDirectory(prefix="torpor-linux-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "code").mkdir(mode=0o755)
        yield root


@dataclass(slots=True)
class Linux:
    """One open provider."""

    provider: LinuxProvider
    folder: Path
    made: list[LinuxSandbox] = field(default_factory=list)

    def code(self, name: str, files: dict[str, str]) -> str:
        """A code folder with these files, all executable."""
        folder = self.folder / "code" / name
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
            (folder / path).chmod(0o755)
        folder.mkdir(exist_ok=True)
        return str(folder)

    async def make(self, runtime: str = PROVIDED, **settings: Any) -> tuple[LinuxSandbox, RecordingListener]:
        """A sandbox with its listener; destroyed with the provider."""
        listener = RecordingListener()
        code = settings.pop("code", None) or self.code("empty", {})
        name = settings.pop("name", f"box-{len(self.made)}")
        spec = SandboxSpec(name=name, runtime=runtime, code=code, **settings)
        sandbox = await self.provider.create(spec, listener)
        self.made.append(sandbox)
        return sandbox, listener

    async def shell(self, script: str, **settings: Any) -> str:
        """What a shell script in a sandbox of its own wrote; it must end well."""
        sandbox, listener = await self.make(**settings)
        text = await run_shell(sandbox, listener, script)
        await sandbox.destroy()
        return text

    async def python(
        self, source: str, *, clone: bool, runtime: str = PYTHON, **variables: str
    ) -> tuple[LinuxSandbox, RecordingListener]:
        """A started Python function, a clone or booted; `source` has a `handler`."""
        sandbox, listener = await self.make(runtime, code=self.code(f"python-{len(self.made)}", {"app.py": source}))
        sandbox.start(python_process(sandbox, clone=clone, runtime=runtime, **variables))
        return sandbox, listener


async def run_shell(sandbox: LinuxSandbox, listener: RecordingListener, script: str, name: str = "shell") -> str:
    """What a script in this sandbox wrote; it must end well."""
    before = len(listener.text)
    sandbox.start(shell(script, name))
    exit = await listener.wait_exit(name, 30.0)
    assert exit.code == 0, (exit, listener.text)
    return listener.text[before:]


def shell(script: str, name: str = "shell") -> ProcessSpec:
    """A process running a shell script."""
    return ProcessSpec(name=name, argv=("/bin/sh", "-c", script), environment=BASIC_ENVIRONMENT, cwd="/")


def python_process(sandbox: LinuxSandbox, *, clone: bool, runtime: str = PYTHON, **variables: str) -> ProcessSpec:
    """The runtime of a Python function `app.handler`."""
    image = images().resolve(runtime)
    environment = {**image.environment, **VARIABLES, "_HANDLER": "app.handler", "LAMBDA_TASK_ROOT": "/var/task"}
    environment["AWS_LAMBDA_RUNTIME_API"] = sandbox.api_address
    environment["LAMBDA_RUNTIME_DIR"] = "/var/runtime"
    return ProcessSpec(name="runtime", argv=image.argv, environment={**environment, **variables}, clone=clone)


async def answer(sandbox: LinuxSandbox) -> bytes:
    """Invoke the function in this sandbox once with `{}`; what it posted."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        connection, _ = await loop.sock_accept(sandbox.api_socket)
        connection.setblocking(False)
        with connection:
            await loop.sock_recv(connection, 65536)
            await loop.sock_sendall(connection, _REPLY.encode())
            data = b""
            while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < _length(data):
                more = await loop.sock_recv(connection, 65536)
                assert more, data
                data += more
    return data.partition(b"\r\n\r\n")[2]


def _length(data: bytes) -> int:
    for line in data.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


@asynccontextmanager
async def open_linux(**settings: Any) -> AsyncIterator[Linux]:
    """An open provider, closed again afterwards. Skips the test, with the reason, where this host has no such rung."""
    values = {"rootless": False, "prepared_target": 1, **settings}
    if reason := linux_refused(rootless=values["rootless"]):
        pytest.skip(reason)
    with places() as folder:
        provider = LinuxProvider(str(folder / "state"), str(folder / "code"), images(), **values)
        await provider.open()
        try:
            yield Linux(provider, folder)
        finally:
            await provider.close()


def pythons() -> list[str]:
    """The Python runtimes that can be served here."""
    return [name for name in images().present() if name.startswith("python") and images().installed(name)]


def python_missing() -> bool:
    """Whether the Python runtime of this interpreter's version cannot be served here."""
    return not images().installed(PYTHON)


def is_root() -> bool:
    return os.geteuid() == 0
