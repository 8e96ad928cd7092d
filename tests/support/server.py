"""A real server in a process of its own, used as its users do: through its API, its operator's routes and its log."""

import base64
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config
from tests.support.functions import Package
from tests.support.nursery import ServerProcess

ISOLATION = "TEST_ISOLATION"
"""Variable with the `--isolation` of servers whose test does not care: `TEST_ISOLATION=process make test`."""
ROLE = "arn:aws:iam::000000000000:role/app"
_READY = 60.0
_STOPPED = 60.0
_GONE = 5.0
_ENDED = "ended"
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_LOOPS = Path("/sys/block")

Value = TypeVar("Value")


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="looks at what control groups, mounts or other users' processes show to root only"
)


def eventually(read: Callable[[], Value], *, within: float = 10.0, what: str = "") -> Value:
    """The first true value that `read` returns; fails if there is none `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := read()):
        assert time.monotonic() < deadline, f"{what or read} did not happen within {within} s: {value!r}"
        time.sleep(0.02)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the caller of an invocation got. Times are seconds since the epoch, `tail` the invocation's log lines."""

    payload: Any
    error: str
    tail: list[str]
    request_id: str
    sent: float
    received: float

    @property
    def elapsed(self) -> float:
        return self.received - self.sent

    @property
    def report(self) -> str:
        return next(line for line in self.tail if line.startswith("REPORT "))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """One event of a function's log; `time` in seconds since the epoch."""

    time: float
    stream: str
    message: str


class TorporServer:
    """One server process with a data folder of its own below `base`; settings are given as flags."""

    def __init__(self, base: Path, **settings: object) -> None:
        self.base = base
        self.data = base / "data"
        self._temporary = base / "tmp"
        self._temporary.mkdir(parents=True)
        self._errors = base / "errors.txt"
        self._threads = ThreadPoolExecutor(48)
        given = {"port": 0, "data": self.data, **settings}
        if isolation := _wanted_isolation():
            given.setdefault("isolation", isolation)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TORPOR_")}
        with self._errors.open("wb") as errors:
            environment["TMPDIR"] = str(self._temporary)
            self.process = ServerProcess(["serve", *_flags(given)], environment, base, errors)
        self.ready_line = self._read_ready_line()
        self.url = next(word for word in self.ready_line.split() if word.startswith("http://"))
        self.homes = [folder.name for folder in (self.data / "sandboxes").glob("linux-*")]
        self.client = self.new_client()

    @property
    def isolation(self) -> str:
        return self.ready_line.partition("isolation: ")[2].partition(";")[0]

    @property
    def runtimes(self) -> list[str]:
        """The managed runtimes that it names when it starts."""
        return self.ready_line.partition("; ")[2].rstrip(")\n").split()

    def new_client(self, **config: Any) -> Any:
        """An SDK client for it that never tries again."""
        patience = {"read_timeout": 90, "connect_timeout": 10, "max_pool_connections": 48}
        return boto3.session.Session().client(
            "lambda",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}, **patience, **config),
        )

    @contextmanager
    def deployed(self, package: Package, **configuration: Any) -> Iterator["Function"]:
        """A new function, deleted at the end. `configuration` as in CreateFunction."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client.create_function(
            FunctionName=name,
            Role=ROLE,
            Runtime=package.runtime,
            Handler=package.handler,
            Code={"ZipFile": package.archive},
            **{"Timeout": 20, "MemorySize": 256, **configuration},
        )
        try:
            function = Function(self, name)
            eventually(lambda: function.configuration()["State"] == "Active", what=f"{name} becoming active")
            yield function
        finally:
            self.client.delete_function(FunctionName=name)

    def environments(self, function: str = "") -> list[dict[str, Any]]:
        """The environments that exist now, of one function or of all."""
        listed: list[dict[str, Any]] = self._admin("environments")["environments"]
        return [entry for entry in listed if function in ("", entry["function"])]

    def logs(self, function: str) -> list[LogEvent]:
        """Everything in a function's log."""
        events = self._admin("logs", function=function, limit="10000")["events"]
        return [
            LogEvent(time=event["time"] / 1000, stream=event["stream"], message=event["message"]) for event in events
        ]

    def phases(self, function: str) -> list[dict[str, Any]]:
        """The phases that a function's environments went through, oldest first."""
        listed: list[dict[str, Any]] = self._admin("phases", function=function)["phases"]
        return listed

    def statistics(self) -> dict[str, Any]:
        """The operator's figures."""
        found: dict[str, Any] = self._admin("statistics")
        return found

    def command(self, *arguments: str) -> str:
        """What the command line tool prints when it is pointed at this server."""
        done = subprocess.run(
            [sys.executable, "-m", "torpor", *arguments, "--endpoint", self.url],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def submit(self, work: Callable[[], Value]) -> Future[Value]:
        """Run something beside the test."""
        return self._threads.submit(work)

    def stop(self) -> None:
        """End it as an operator does; asserts that it ends well and leaves nothing but its data."""
        if self.process.returncode is not None:
            return
        family = _descendants(self.process.pid)
        self._threads.shutdown()
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(_STOPPED)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()
        errors = self._errors.read_text(errors="replace")
        assert code == 0, errors
        assert "Traceback" not in errors, errors
        deadline = time.monotonic() + _GONE
        while remains := self._remains(family):
            assert time.monotonic() < deadline, f"left behind: {remains}"
            time.sleep(0.05)

    def _remains(self, family: dict[int, str]) -> list[str]:
        """What is left of a server that has ended, apart from its data."""
        found = [_describe(pid) for pid, started in family.items() if _started(pid) == started]
        for _, folders, _ in os.walk(_CONTROL_GROUPS) if self.homes else ():
            found += [f"control group {name}" for name in folders if any(home in name for home in self.homes)]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [f"mount {line.split()[4]}" for line in mounts if str(self.base) in line]
        for backing in _LOOPS.glob("loop*/loop/backing_file"):
            found += [f"loop device {backing}"] if str(self.base) in _text(backing) else []
        found += [f"folder {folder}" for folder in (self.data / "sandboxes").glob("*") if folder.is_dir()]
        return found + [f"temporary {path}" for path in self._temporary.iterdir()]

    def _admin(self, route: str, **query: str) -> Any:
        address = f"{self.url}/_torpor/{route}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            return json.loads(answer.read())

    def _read_ready_line(self) -> str:
        readable, _, _ = select.select([self.process.stdout], [], [], _READY)
        line = self.process.stdout.readline().decode() if readable else ""
        if "http://" not in line:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            raise AssertionError(f"The server did not start: {line}{self._errors.read_text(errors='replace')}")
        return line


class Function:
    """A deployed function."""

    def __init__(self, server: TorporServer, name: str, qualifier: str = "") -> None:
        self.server = server
        self.name = name
        self._called = f"{name}:{qualifier}" if qualifier else name

    def invoke(self, event: Any = None) -> Reply:
        """Run it once, with its log."""
        sent = time.time()
        answer = self.server.client.invoke(
            FunctionName=self._called, Payload=json.dumps({} if event is None else event), LogType="Tail"
        )
        payload = answer["Payload"].read()
        received = time.time()
        return Reply(
            payload=json.loads(payload),
            error=answer.get("FunctionError", ""),
            tail=base64.b64decode(answer.get("LogResult", "")).decode().splitlines(),
            request_id=answer["ResponseMetadata"]["RequestId"],
            sent=sent,
            received=received,
        )

    def start(self, event: Any = None) -> Future[Reply]:
        """Run it once while the test goes on."""
        return self.server.submit(lambda: self.invoke(event))

    def configuration(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.client.get_function_configuration(FunctionName=self.name)
        return found

    def recycle(self) -> None:
        """Change its configuration, which ends every environment."""
        self.server.client.update_function_configuration(FunctionName=self.name, Description=uuid.uuid4().hex)
        eventually(lambda: not self.environments(), what=f"environments of {self.name} ending")

    def logs(self) -> list[LogEvent]:
        return self.server.logs(self.name)

    def lines(self) -> list[str]:
        """Its whole log, line by line."""
        return [line for event in self.logs() for line in event.message.splitlines()]

    def environments(self) -> list[dict[str, Any]]:
        return self.server.environments(self.name)

    def phases(self) -> list[dict[str, Any]]:
        return self.server.phases(self.name)

    def wait_until_frozen(self) -> float:
        """Return once its only environment is frozen; the time since when it surely is."""
        eventually(
            lambda: [entry["phase"] for entry in self.environments()] == ["frozen"], what=f"{self.name} being frozen"
        )
        return time.time()


def _wanted_isolation() -> str:
    """The rung that the tests are to use: as told, and never silently less than root can have."""
    return os.environ.get(ISOLATION) or ("sandbox" if os.geteuid() == 0 else "")


def _flags(settings: dict[str, object]) -> Iterator[str]:
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield f"--{flag}={value}"


def _descendants(parent: int) -> dict[int, str]:
    """Every process below `parent` with the time it was started."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        stat = _text(folder / "stat").rpartition(")")[2].split()
        if stat:
            children.setdefault(int(stat[1]), []).append(int(folder.name))
    found: dict[int, str] = {}
    waiting = [parent]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found[child] = _started(child)
            waiting.append(child)
    return {pid: started for pid, started in found.items() if started != _ENDED}


def _started(pid: int) -> str:
    """When a process was started; `_ENDED` if there is none, or only its exit code is left."""
    stat = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return stat[19] if stat and stat[0] != "Z" else _ENDED


def _describe(pid: int) -> str:
    state = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:2]
    return f"process {pid} ({_text(Path(f'/proc/{pid}/cmdline')).replace(chr(0), ' ')}, state and parent {state})"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
