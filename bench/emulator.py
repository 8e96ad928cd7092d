"""The cloud's own emulator as the yardstick: its binary; the same interpreter, client and handler; no container.

Without a container it is faster than what people have, so the comparison is kind to it. It serves one invocation at a
time and ends itself when it is sent two, so several callers need an emulator each, or take turns. Where it comes from:
`tests.support.emulator`.

Its multi-concurrent mode (`managed_emulator`) serves several, and refuses what comes while all workers are busy. It
takes the runtime from fixed folders only and runs it as a user of its own.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop
from tests.support.emulator import HOUSED, EmulatorProcess, binary, house

from bench.load import Outcome, closed_loop, invocation, once
from torpor.sandbox.images import DEFAULT_ROOT
from torpor.sandbox.interpreters import Language, choose, discover

HANDLERS = Path(__file__).parent / "handlers" / "echo"
MANAGED_RUNTIME = "python3.13"
"""The oldest Python whose client has workers."""
_WITHIN = 20.0
_MINORS = (11, 12, 13)
"""Of the standard mode: from 3.12 on the client polls from a thread of its own where it finds the cloud's variables,
which the emulator does not set; with 3.11 it does the same on both sides."""


def managed_runtime() -> tuple[str, str]:
    """Prefix of the interpreter and the client's folder for the multi-concurrent mode. LookupError without one."""
    python = choose(discover(), Language.PYTHON, 3, int(MANAGED_RUNTIME.partition(".")[2]))
    client = Path(DEFAULT_ROOT) / MANAGED_RUNTIME
    if python is None or not client.is_dir():
        raise LookupError(f"No {MANAGED_RUNTIME} with its runtime client is here.")
    return python.prefix, str(client)


def runtime() -> tuple[str, str, str]:
    """Runtime identifier, interpreter and client folder, as the server would choose them. LookupError without one."""
    interpreters = discover()
    for minor in _MINORS:
        client = Path(DEFAULT_ROOT) / f"python3.{minor}"
        python = choose(interpreters, Language.PYTHON, 3, minor)
        if python is not None and client.is_dir():
            return f"python3.{minor}", python.executable, str(client)
    raise LookupError("No managed Python with its runtime client is here; `make setup` installs the client.")


class Emulator(EmulatorProcess):
    """One emulator process with one runtime that serves the benchmark's handlers."""

    def __init__(
        self, program: Path, after: Sequence[str], environment: Mapping[str, str], before: Sequence[str] = ()
    ) -> None:
        super().__init__(program, after, environment, folder=HANDLERS, before=before)

    @classmethod
    def standard(cls, program: Path, handler: str = "handler.handler") -> "Emulator":
        """One invocation at a time."""
        _, python, client = runtime()
        return cls(program, [python, "-m", "awslambdaric", handler], _environment(client, str(HANDLERS)))

    async def first_answer(self) -> None:
        """Wait for the port, then for one answer."""
        deadline = time.monotonic() + _WITHIN
        while True:
            try:
                await once(self.port, invocation("function"))
                return
            except (OSError, RuntimeError):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                await asyncio.sleep(0.001)


def _environment(client: str, code: str) -> Mapping[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "PYTHONPATH": client,
        "AWS_LAMBDA_FUNCTION_NAME": "function",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_REGION": "us-east-1",
        "LAMBDA_TASK_ROOT": code,
    }


@contextmanager
def running(program: Path, count: int) -> Iterator[list[Emulator]]:
    """So many warm emulators."""
    with ExitStack() as stack:
        emulators = []
        for _ in range(count):
            emulator = Emulator.standard(program)
            stack.callback(emulator.stop)
            emulators.append(emulator)
        for emulator in emulators:
            uvloop.run(emulator.first_answer())
        yield emulators


_BOOTSTRAP = f"""#!/bin/sh
# The emulator takes this variable away; with it the client polls from a thread of its own, as in the cloud.
export AWS_EXECUTION_ENV=AWS_Lambda_{MANAGED_RUNTIME}
exec /var/lang/bin/python3 -m awslambdaric "$_HANDLER"
"""
_WORKERS_START = 1.0
"""Seconds after the first answer until the other workers have started too."""


@contextmanager
def managed_emulator(program: Path, workers: int) -> Iterator[Emulator]:
    """A warm emulator in its multi-concurrent mode. LookupError and OSError without what it needs."""
    prefix, client = managed_runtime()
    environment = {
        **_environment("/var/runtime", "/var/task"),
        "AWS_LAMBDA_MAX_CONCURRENCY": str(workers),
        "LD_LIBRARY_PATH": "/var/lang/lib",
        "_HANDLER": "handler.handler",
    }
    files = {f"var/task/{file.name}": file.read_text() for file in HANDLERS.glob("*.py")}
    with tempfile.TemporaryDirectory(prefix="torpor-emulator-") as folder:
        files["var/task/bootstrap"] = _BOOTSTRAP
        before = house(Path(folder), program, files, lang=prefix, client=client)
        emulator = Emulator(HOUSED, ["/var/task/bootstrap"], environment, before)
        try:
            uvloop.run(emulator.first_answer())
            time.sleep(_WORKERS_START)
            yield emulator
        finally:
            emulator.stop()


def warm(program: Path, *, callers: int, processes: int, count: int) -> Outcome:
    """Callers spread evenly over emulator processes, warm."""
    with running(program, processes) as emulators:
        ports = [emulators[number % processes].port for number in range(callers)]
        asks = [invocation("function")] * callers
        uvloop.run(closed_loop(ports, asks, max(count // 10, callers)))
        return uvloop.run(closed_loop(ports, asks, count))


def cold(program: Path, samples: int) -> Outcome:
    """From the start of the emulator's process to the first answer."""
    took = []
    began = time.perf_counter()
    for _ in range(samples):
        start = time.perf_counter()
        emulator = Emulator.standard(program)
        try:
            uvloop.run(emulator.first_answer())
            took.append(time.perf_counter() - start)
        finally:
            emulator.stop()
    return Outcome(tuple(sorted(took)), 0, time.perf_counter() - began)


def main() -> int:
    """Measure the emulator alone."""
    parser = argparse.ArgumentParser(prog="python -m bench.emulator", description="Measure the cloud's own emulator.")
    parser.add_argument("--emulator", default="", help="its binary; fetched if not given")
    parser.add_argument("--count", type=int, default=5000)
    given = parser.parse_args()
    program = binary(given.emulator)
    print("warm, 1 caller:              ", warm(program, callers=1, processes=1, count=given.count))
    print("warm, 8 callers, 1 emulator: ", warm(program, callers=8, processes=1, count=given.count))
    print("warm, 8 callers, 8 emulators:", warm(program, callers=8, processes=8, count=given.count))
    print("start to first answer:       ", cold(program, 10))
    return 0


if __name__ == "__main__":
    sys.exit(main())
