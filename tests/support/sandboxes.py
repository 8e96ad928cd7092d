"""The rungs a test can run on, and the programs that run inside them.

Each program exists twice under one name: as a script in the code folder, for rungs with processes, and as a coroutine,
for the memory rung.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.support.listener import RecordingListener

from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.interpreters import Interpreter
from torpor.sandbox.memory import MemoryProcess, MemoryProvider, Program
from torpor.sandbox.plain import PlainProvider, guard
from torpor.sandbox.port import ProcessSpec, Sandbox, SandboxProvider, SandboxSpec

RUNTIME = "provided.al2023"
RUNGS = ("memory", "plain", "root", "rootless")
BIG = 1024 * 1024
HELD = 8 * 1024 * 1024
TICK = 0.02
BASIC_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


class RungUnavailable(Exception):
    """This host cannot provide the rung; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """Folders for one provider. `code` lies below `code_root`."""

    state: Path
    code_root: Path
    code: Path


_CHILD = f"( while :; do echo child; sleep {TICK}; done ) &"
SCRIPTS: dict[str, str] = {
    "hello": "#!/bin/sh\necho one\necho two >&2\necho three\n",
    "exit-7": "#!/bin/sh\nexit 7\n",
    "kill-self": "#!/bin/sh\nkill -9 $$\n",
    "not-executable": "#!/bin/sh\necho never\n",
    "environment": "#!/bin/sh\ncat /proc/$$/environ\n",
    "where": '#!/bin/sh\nls "$FOLDER"\n',
    "cwd": "#!/bin/sh\ncat ./message\n",
    "message": "from the code folder\n",
    "ticks": f"#!/bin/sh\nn=0\nwhile :; do n=$((n+1)); echo tick $n; sleep {TICK}; done\n",
    "forker": f"#!/bin/sh\n{_CHILD}\nwhile :; do echo parent; sleep {TICK}; done\n",
    "orphan-maker": f"#!/bin/sh\n{_CHILD}\nexit 0\n",
    "big": f"#!/bin/sh\nhead -c {BIG} /dev/zero | tr '\\000' x\n",
    "write-tmp": '#!/bin/sh\necho "$WORD" > "$TMP_AT/word" && echo written\n',
    "read-tmp": '#!/bin/sh\ncat "$TMP_AT/word" 2>/dev/null || echo nothing\n',
    "write-code": '#!/bin/sh\nif ( : > "$TASK_AT/intruder" ) 2>/dev/null; then echo writable; else echo refused; fi\n',
    "frames": '#!/bin/bash\nprintf frame-1 >&"$LOG_FD"\nprintf plain\nprintf frame-2 >&"$LOG_FD"\n',
    "hold-memory": f"#!/bin/sh\nx=$(head -c {HELD} /dev/zero | tr '\\000' x)\necho holding ${{#x}}\nsleep 60\n",
    "fill-memory": "#!/bin/sh\nx=$(printf %1000000s)\nwhile :; do x=$x$x; sleep 0.03; done\n",
    "trap-term": f"#!/bin/sh\ntrap 'echo got TERM; exit 3' TERM\necho ready\nwhile :; do sleep {TICK}; done\n",
    "files-limit": "#!/bin/sh\nsleep 0.1\nulimit -n\n",
    "call-api": """#!/bin/bash
exec 3<>"/dev/tcp/${API%:*}/${API##*:}"
printf ping >&3
read -r answer <&3
echo "$answer"
""",
}
SCRIPTS |= {
    "serve": """#!/usr/bin/python3
import os, socket
host, port = os.environ["HOST"], int(os.environ["PORT"])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
server = socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"answer to " + connection.recv(100))
""",
    "change-code": "#!/bin/sh\nif (echo changed > message) 2>/dev/null; then cat message; else echo refused; fi\n",
    "workers": """#!/usr/bin/python3
import os, socket, time
path = os.environ["WORKER_LOGS"]
for worker in range(int(os.environ["WORKERS"])):
    if os.fork() == 0:
        for stream in (1, 2):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                os.dup2(connection.fileno(), stream)
        os.write(1, b"out %d\\n" % worker)
        os.write(2, b"err %d\\n" % worker)
        if os.environ["STAY"]:
            time.sleep(60)
        os._exit(0)
os.write(1, b"parent\\n")
while os.environ["STAY"]:
    time.sleep(1)
for worker in range(int(os.environ["WORKERS"])):
    os.wait()
""",
}
DATA_FILES = ("not-executable", "message")


def write_code(folder: Path) -> None:
    """Write the scripts into a new folder, readable by every user."""
    folder.mkdir(parents=True, mode=0o755)
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644 if name in DATA_FILES else 0o755)


async def _hello(process: MemoryProcess) -> None:
    for word in (b"one\n", b"two\n", b"three\n"):
        process.write(word)
        await asyncio.sleep(0)


def _exit_7(process: MemoryProcess) -> int:
    return 7


async def _kill_self(process: MemoryProcess) -> None:
    process.receive(signal.SIGKILL)
    await asyncio.sleep(60)


def _environment(process: MemoryProcess) -> None:
    process.write(b"".join(f"{name}={value}\0".encode() for name, value in process.environment.items()))


def _where(process: MemoryProcess) -> None:
    process.write("\n".join(sorted(os.listdir(process.sandbox.spec.code))).encode())


def _cwd(process: MemoryProcess) -> None:
    process.write(process.read_code("message"))


async def _ticks(process: MemoryProcess) -> None:
    count = 0
    while True:
        count += 1
        process.write(f"tick {count}\n".encode())
        await asyncio.sleep(TICK)


async def _child(process: MemoryProcess) -> None:
    while True:
        process.write(b"child\n")
        await asyncio.sleep(TICK)


async def _forker(process: MemoryProcess) -> None:
    process.fork(_child)
    while True:
        process.write(b"parent\n")
        await asyncio.sleep(TICK)


def _orphan_maker(process: MemoryProcess) -> None:
    process.fork(_child)


def _big(process: MemoryProcess) -> None:
    process.write(b"x" * BIG)


def _write_tmp(process: MemoryProcess) -> None:
    process.tmp["word"] = process.environment["WORD"].encode()
    process.write(b"written\n")


def _read_tmp(process: MemoryProcess) -> None:
    process.write(process.tmp.get("word", b"nothing") + b"\n")


def _write_code(process: MemoryProcess) -> None:
    process.write(b"refused\n")


def _frames(process: MemoryProcess) -> None:
    process.write_framed(b"frame-1")
    process.write(b"plain")
    process.write_framed(b"frame-2")


async def _hold_memory(process: MemoryProcess) -> None:
    process.use_memory(HELD)
    process.write(f"holding {HELD}\n".encode())
    await asyncio.sleep(60)


async def _fill_memory(process: MemoryProcess) -> None:
    size = HELD
    while True:
        process.use_memory(size)
        size *= 2
        await asyncio.sleep(TICK)


async def _trap_term(process: MemoryProcess) -> int:
    got = asyncio.Event()
    process.on_signal(signal.SIGTERM, got.set)
    process.write(b"ready\n")
    await got.wait()
    process.write(b"got TERM\n")
    return 3


def _files_limit(process: MemoryProcess) -> None:
    process.write(f"{process.sandbox.spec.files}\n".encode())


async def _call_api(process: MemoryProcess) -> None:
    reader, writer = await process.connect()
    writer.write(b"ping")
    process.write(await reader.readline())


async def _serve(process: MemoryProcess) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"answer to " + await reader.read(100))

    await process.serve(answer, int(process.environment["PORT"]), process.environment["HOST"])
    process.write(b"listening\n")
    await asyncio.sleep(60)


def _change_code(process: MemoryProcess) -> None:
    with contextlib.suppress(OSError):
        process.write_code("message", b"changed\n")
        process.write(process.read_code("message"))
        return
    process.write(b"refused\n")


async def _workers(process: MemoryProcess) -> None:
    for worker in range(int(process.environment["WORKERS"])):
        for stream in ("out", "err"):
            process.write_worker(process.connect_worker(), f"{stream} {worker}\n".encode())
    process.write(b"parent\n")
    if process.environment["STAY"]:
        await asyncio.sleep(60)


PROGRAMS: Mapping[str, Program] = {
    f"/var/task/{name}": program
    for name, program in {
        "hello": _hello,
        "exit-7": _exit_7,
        "kill-self": _kill_self,
        "environment": _environment,
        "where": _where,
        "cwd": _cwd,
        "ticks": _ticks,
        "forker": _forker,
        "orphan-maker": _orphan_maker,
        "big": _big,
        "write-tmp": _write_tmp,
        "read-tmp": _read_tmp,
        "write-code": _write_code,
        "frames": _frames,
        "hold-memory": _hold_memory,
        "fill-memory": _fill_memory,
        "trap-term": _trap_term,
        "files-limit": _files_limit,
        "call-api": _call_api,
        "serve": _serve,
        "workers": _workers,
        "change-code": _change_code,
    }.items()
}


def process(
    sandbox: Sandbox, program: str, *, name: str = "runtime", log: str = "", own_output: bool = False, **variables: str
) -> ProcessSpec:
    """A process running one of the programs, with a basic environment and these variables."""
    return ProcessSpec(
        name=name,
        argv=(f"{sandbox.paths['task']}/{program}",),
        environment={**BASIC_ENVIRONMENT, **variables},
        cwd=sandbox.paths["task"],
        framed_log_variable=log,
        own_output=own_output,
    )


def make_provider(rung: str, place: Workplace, interpreters: Iterable[Interpreter] = ()) -> SandboxProvider:
    """A closed provider of the rung. Raises RungUnavailable."""
    images = ImageCatalog(str(place.state / "runtimes"), interpreters)
    if rung == "memory":
        return MemoryProvider(PROGRAMS, runtimes=(RUNTIME,))
    if rung == "plain":
        return PlainProvider(str(place.state), images)
    return _linux(place, images, rootless=rung == "rootless")


def _linux(place: Workplace, images: ImageCatalog, *, rootless: bool) -> SandboxProvider:
    if reason := linux_refused(rootless=rootless):
        raise RungUnavailable(reason)
    module = import_module("torpor.sandbox.linux")
    provider: SandboxProvider = module.LinuxProvider(
        state_dir=str(place.state),
        code_root=str(place.code_root),
        images=images,
        egress=None,
        rootless=rootless,
        prepared_target=1,
    )
    return provider


# CLONE_NEWNS, CLONE_NEWPID and CLONE_NEWNET; with CLONE_NEWUSER for the second.
_NAMESPACES = 0x00020000 | 0x20000000 | 0x40000000
_USER_NAMESPACES = _NAMESPACES | 0x10000000
_UNSHARE = "import ctypes,os,sys; c=ctypes.CDLL(None,use_errno=True); f=int(sys.argv[1]);"
_UNSHARE += "sys.exit(os.strerror(ctypes.get_errno()) if c.unshare(f) else 0)"


def linux_refused(*, rootless: bool) -> str:
    """Why this host or account cannot have this rung; empty if it can."""
    if not rootless and os.geteuid() != 0:
        return "the root rung needs root"
    reason = namespaces_refused(_USER_NAMESPACES if rootless else _NAMESPACES)
    return reason and f"this host refuses new namespaces: {reason}"


@lru_cache
def namespaces_refused(flags: int) -> str:
    """Why a process of this user may not make these namespaces; empty if it may."""
    done = subprocess.run([sys.executable, "-c", _UNSHARE, str(flags)], capture_output=True, text=True, check=False)
    return done.stderr.strip()


async def open_provider(rung: str, place: Workplace, interpreters: Iterable[Interpreter] = ()) -> SandboxProvider:
    """An open provider of the rung. Raises RungUnavailable where this host cannot have it."""
    provider = make_provider(rung, place, interpreters)
    await provider.open()
    return provider


@dataclass(slots=True)
class Rig:
    """One open provider and what a test needs around it."""

    rung: str
    provider: SandboxProvider
    place: Workplace
    made: list[Sandbox] = field(default_factory=list)

    async def make(self, name: str = "", **settings: Any) -> tuple[Sandbox, RecordingListener]:
        """A sandbox with its listener; destroyed when the provider is closed."""
        listener = RecordingListener()
        values = {"name": name or f"box-{len(self.made)}", "runtime": RUNTIME, "code": str(self.place.code)}
        sandbox = await self.provider.create(SandboxSpec(**{**values, **settings}), listener)
        self.made.append(sandbox)
        return sandbox, listener

    def host_pids(self, sandbox: Sandbox) -> tuple[int, ...]:
        """Numbers of the processes inside that mean something to this host."""
        return () if self.rung == "memory" else sandbox.statistics().processes

    def leftovers(self, name: str) -> list[str]:
        """Folders and cgroups that carry a sandbox's name."""
        roots = (self.place.state, Path("/sys/fs/cgroup"))
        return [str(path) for root in roots for path in root.rglob(f"*{name}*")]


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    return guard.identity(pid) is not None


async def progress(sandbox: Sandbox, listener: RecordingListener, during: float = 10 * TICK) -> int:
    """Bytes written during this time by programs that tick."""
    sandbox.drain_output()
    before = len(listener.text)
    await asyncio.sleep(during)
    sandbox.drain_output()
    return len(listener.text) - before
