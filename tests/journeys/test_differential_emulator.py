"""The same runtime, extensions and events under the cloud's own emulator and here: the same answers, but for a table.

Compared is what a runtime, its extensions and the callers are answered: status, body, and the fields that say something
about the call. Each difference that is meant stands in a table with its reason; one that does not is a fault, and so is
a row of the table that no longer holds.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.conftest import require, require_sandbox
from tests.support.emulator import HOUSED, EmulatorProcess, binary, house
from tests.support.extensions import layer
from tests.support.functions import PROVIDED, PYTHON, Package, archive
from tests.support.managed import ManagedFunction, managed
from tests.support.scenes import SCENES
from tests.support.scripted import Answers, Scene, Told, answers
from tests.support.server import Function, TorporServer, eventually

from torpor.sandbox.interpreters import Language, choose, discover

pytestmark = pytest.mark.privileged
"""The scripts are programs for the `/var/lang` of a sandbox."""

FUNCTION = "scripted"
HANDLER = "app.handler"
MANAGED = "python3.13"
"""The oldest one for managed instances."""
NONE = "none"
"""A field, or a whole answer, that is not there."""
TOGETHER = 6
_QUIET = 0.6
"""Seconds without output after which all has been said: twice as long as what a script waits for."""
CALLED_WITH = {
    "Content-Type": "application/json",
    "X-Amz-Client-Context": "eyJhIjoxfQ==",
    "X-Amzn-Trace-Id": "Root=1-5f35ae12-0c0fec141ab77a00bc047aa2;Parent=2be948a625588e32;Sampled=1",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one answer. In the table a star stands for any text."""

    where: str
    """Scene, who was answered, and what."""
    field: str
    emulator: str
    torpor: str


def _transition(start: str, end: str) -> str:
    text = f"State transition from {start} to {end} failed for * Error: State transition is not allowed"
    return f'{{"errorMessage":"{text}","errorType":"*InvalidStateTransition"}}\n'


def _refused(start: str, end: str) -> str:
    return _transition(start, end).replace("*InvalidStateTransition", "Extension.InvalidExtensionState")


def _shutdown(reason: str) -> str:
    return f'{{"eventType":"SHUTDOWN","deadlineMs":<ms>,"shutdownReason":"{reason}"}}'


_TEXT, _JSON = "text/plain; charset=utf-8", "application/json"
_OK = '{"status":"OK"}\n'
_FAILED = '{"errorType":"*","errorMessage":"RequestId: <id 1> Error: *"}'
_TOO_LARGE = "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
_NOT_JSON = '{"errorMessage":"*","errorType":"InvalidRequestFormat"}\n'
_UPLOADING, _ANSWERED = "InvocationResponse", "RuntimeResponseSentState"

MEANT: Mapping[Difference, str] = {
    # What the caller gets.
    Difference("*: caller*", "X-Amz-Function-Error", NONE, "Unhandled"): (
        "5.6: the service says so of every failure; the emulator has no service before it"
    ),
    Difference("*: caller*", "status", "502", "200"): "5.6: 200 with X-Amz-Function-Error",
    Difference("*: caller", "body", "", _FAILED): "5.6: the emulator keeps back what it knows of a failure",
    Difference("*: caller", "body", "Task timed out after 1.00 seconds", _FAILED): "5.6: as JSON, with the request id",
    Difference(
        "too large an answer: caller",
        "body",
        f'{{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"{_TOO_LARGE}"}}',
        f'{{"errorMessage":"{_TOO_LARGE}","errorType":"Function.ResponseSizeTooLarge"}}',
    ): "5.6: the order that was recorded",
    Difference("streamed error: caller", "body", "half", '{"errorType":"Own"}'): (
        "2.7: an error behind the answer is the answer's end; the emulator passes its trailers over"
    ),
    Difference(
        "exit/error of an extension: caller",
        "body",
        '{"errorType":"Extension.ExitError","errorMessage":"RequestId: <id 1> Error: exit status 1"}',
        '{"errorType":"Extension.ExitError","errorMessage":"RequestId: <id 1> Error: watcher reported an error"}',
    ): "3.3: the report itself is the failure; the emulator waits for the process to end",
    Difference("managed: *: caller*", "body", '{"errorType":"*"}', _FAILED): "5.6: in words too",
    Difference(
        "managed: answers in and out of turn: caller (4)",
        "body",
        '{"errorType":"Function.ResponseSizeTooLarge"}',
        f'{{"errorMessage":"{_TOO_LARGE}","errorType":"Function.ResponseSizeTooLarge"}}',
    ): "5.6: in words too",
    Difference(
        "managed: late answer: caller",
        "body",
        '{"errorType":"Sandbox.Timedout","errorMessage":"Task timed out after 1.00 seconds"}',
        _FAILED,
    ): "5.6: with the request id",
    # What the runtime gets.
    Difference("*: bootstrap: *", "Lambda-Runtime-Trace-Id", NONE, "<trace>"): "2.2: there always",
    Difference(
        "unknown response mode: * after it", "body", _transition(_UPLOADING, "*"), _transition(_ANSWERED, "*")
    ): ("2.3: the invocation has failed, so it is answered; in the emulator nothing ends that answer"),
    Difference("unknown response mode: bootstrap: next after it", "answer", "given", NONE): (
        "2.5: after an answer the runtime may ask for more, and waits"
    ),
    Difference("streamed answer broken off: caller", "body", _FAILED, _FAILED): (
        "5.4: Runtime.TruncatedResponse, told at once; in the emulator nothing ends that answer"
    ),
    Difference("streamed answer broken off: bootstrap: next after it", "answer", "given", NONE): (
        "2.5: after an answer the runtime may ask for more, and waits"
    ),
    Difference("answer shorter than announced: caller", "body", _FAILED, "{}"): (
        "2.1: what did not arrive is no answer, and its sender heard of none: it may send it again"
    ),
    Difference("answer shorter than announced: bootstrap: response after it", "status", "403", "202"): "as above",
    Difference(
        "answer shorter than announced: bootstrap: response after it", "body", _transition(_UPLOADING, _UPLOADING), _OK
    ): "as above",
    Difference("answer shorter than announced: bootstrap: next after it", "answer", "given", NONE): "as above",
    Difference("init/error*: bootstrap: * (2)", "answer", NONE, "given"): (
        "1.2: Init is made again inside the invocation; the emulator, which has no Init before it, makes it once"
    ),
    Difference("managed: *: bootstrap: next*", "Lambda-Runtime-Invocation-Id", "<attempt>", NONE): (
        "2.2: optional; it tells attempts of the same id apart, and an environment gets each id once"
    ),
    Difference("managed: *: bootstrap: * by *", "Allow", NONE, "*"): "2.1: as in standard environments",
    Difference("managed: *: bootstrap: init/error while running", "status", "202", "403"): (
        "2.5: Init is over; to workers it is all one"
    ),
    Difference("managed: *: bootstrap: init/error while running", "body", _OK, _transition("Ready", "InitError")): (
        "as above"
    ),
    # What extensions get.
    Difference("*: *: register (2)", "answer", NONE, "given"): "1.2: as above",
    Difference("init/error of an extension: watcher: * (2)", "answer", NONE, "given"): "1.2: as above",
    Difference("*: watcher: *", "body", _NOT_JSON, _NOT_JSON): "3.4: each parser has its own words",
    Difference(
        "*: *: register",
        "body",
        '{"functionName":"<function>","functionVersion":"$LATEST","handler":"app.handler"}\n',
        '{"functionName":"<function>","functionVersion":"$LATEST","handler":"app.handler","accountId":"000000000000"}\n',
    ): "3.1: there if it was asked for; the emulator has no account",
    Difference(
        "managed: extensions: watcher: register",
        "body",
        '{"accountId":"*","functionName":"<function>","functionVersion":"1","handler":"app.handler"}\n',
        '{"functionName":"<function>","functionVersion":"1","handler":"app.handler","accountId":"*"}\n',
    ): "3.1: in one order everywhere",
    Difference(
        "managed: extensions: watcher: twice",
        "body",
        '{"*. Error: state transition is not allowed","errorType":"Extension.InvalidExtensionState"}\n',
        '{"*. Error: State transition is not allowed","errorType":"Extension.InvalidExtensionState"}\n',
    ): "3.4: in one spelling everywhere",
    Difference(
        "identifiers: watcher: next with an identifier without dashes",
        "body",
        '{"errorMessage":"Unknown extension <id 1>","errorType":"Extension.UnknownExtensionIdentifier"}\n',
        '{"errorMessage":"Invalid Lambda-Extension-Identifier","errorType":"Extension.InvalidExtensionIdentifier"}\n',
    ): "3.4: identifiers are given in one form, and one form is known",
    Difference("*/error of an extension: watcher: */error twice", "status", "202", "403"): (
        "3.3: after an error no further call succeeds"
    ),
    Difference(
        "init/error of an extension: watcher: init/error twice", "body", _OK, _refused("InitError", "InitError")
    ): ("as above"),
    Difference("exit/error of an extension: watcher: exit/error twice", "body", _OK, _refused("ExitError", "Exited")): (
        "as above"
    ),
    Difference(
        "*: *: event*", "Content-Type", _TEXT, _JSON
    ): "3.1: also of the last event, of which the emulator tells none",
    Difference("*: *: event*", "body", _shutdown("SandboxTerminated"), _shutdown("spindown")): "3.2",
    Difference("events of a time-out: watcher: event (2)", "body", _shutdown("Timeout"), _shutdown("timeout")): "3.2",
    Difference("events of a crash: watcher: event (2)", "body", _shutdown("ReleaseFail"), _shutdown("failure")): "3.2",
}
"""Each with its reason and the section of the contract that gives it."""


# -- the two platforms


def _call(base: str, function: str, query: str = "", *, refused: int = 0) -> Told:
    """What the caller of one invocation gets. An answer `refused` says that no worker has asked for one yet."""
    address = f"{base}/2015-03-31/functions/{function}/invocations{query}"
    told = [_called(address)]
    eventually(lambda: told.append(_called(address)) if told[-1].status == refused else told, what="a free worker")
    return told[-1]


def _called(address: str) -> Told:
    request = urllib.request.Request(address, data=b'{"n": 1}', headers=CALLED_WITH)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return _told(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return _told(error.code, error.headers, error.read())


def _told(status: int, headers: Mapping[str, str], body: bytes) -> Told:
    """The emulator tells no content type of its own: it guesses one."""
    kept = {name: value for name, value in headers.items() if name.lower() == "x-amz-function-error"}
    return Told(status, kept, body.decode())


def _on_emulator(scene: Scene, program: Path) -> Answers:
    files = {f"var/task/{path}": text for path, text in scene.package.items()}
    files |= {f"opt/{path}": text for path, text in scene.layer.items()}
    environment = {
        "PATH": "/usr/bin:/bin",
        "LD_LIBRARY_PATH": "/var/lang/lib",
        "AWS_LAMBDA_FUNCTION_NAME": FUNCTION,
        "AWS_LAMBDA_FUNCTION_VERSION": "1" if scene.workers else "$LATEST",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(scene.timeout),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_REGION": "us-east-1",
        "_HANDLER": HANDLER,
        **({"AWS_LAMBDA_MAX_CONCURRENCY": str(scene.workers)} if scene.workers else {}),
    }
    with tempfile.TemporaryDirectory(prefix="torpor-emulator-") as name, tempfile.TemporaryFile() as output:
        before = house(Path(name), program, files, lang=_interpreter(scene))
        emulator = EmulatorProcess(HOUSED, [], environment, folder=Path(name), before=before, output=output)
        try:
            eventually(emulator.listens, what="the emulator listening")
            base = f"http://127.0.0.1:{emulator.port}"
            told = [_call(base, "function", refused=400) for _ in range(scene.invocations)]
            _wait_until_quiet(lambda: os.fstat(output.fileno()).st_size)
            emulator.process.send_signal(signal.SIGTERM)
            emulator.process.wait(10)
        finally:
            emulator.stop()
        output.seek(0)
        return answers(output.read().decode().splitlines(), told, FUNCTION)


def _wait_until_quiet(said: Callable[[], int]) -> None:
    """A caller has its answer before the runtime is told that it was taken; `said` counts what programs have said."""
    last = -1
    while (now := said()) != last:
        last = now
        time.sleep(_QUIET)


def _runtime(scene: Scene) -> str:
    """A managed runtime, for its interpreter; the script takes the place of its program."""
    return MANAGED if scene.workers else PYTHON if scene.is_scripted else PROVIDED


def _interpreter(scene: Scene) -> str:
    """The prefix of the one that the server chooses."""
    name = MANAGED if scene.workers else PYTHON
    python = choose(discover(), Language.PYTHON, 3, int(name.partition(".")[2]))
    assert python is not None
    return python.prefix


def _on_torpor(scene: Scene, server: TorporServer) -> Answers:
    package = Package(archive=archive(scene.package), runtime=_runtime(scene), handler=HANDLER)
    configuration: dict[str, Any] = {"Timeout": scene.timeout}
    if scene.is_scripted:
        configuration["Environment"] = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/bootstrap"}}
    with ExitStack() as stack:
        configuration["Layers"] = [stack.enter_context(layer(server, scene.layer or {"nothing": ""}))]
        if scene.workers:
            many = managed(server, package, concurrency=scene.workers, **configuration)
            return _of_instances(scene, stack.enter_context(many))
        return _of_function(scene, stack.enter_context(server.deployed(package, **configuration)))


def _of_function(scene: Scene, function: Function) -> Answers:
    told, rests = [], {"frozen", "uninitialized"}
    for _ in range(scene.invocations):
        told.append(_call(function.server.url, function.name))
        # Who calls before that may get another environment, where the script begins anew.
        eventually(lambda: {one["phase"] for one in function.environments()} <= rests, what="the environment resting")
    function.recycle()
    return answers(function.lines(), told, function.name)


def _of_instances(scene: Scene, function: ManagedFunction) -> Answers:
    version = f"?Qualifier={function.version}"
    told = [_call(function.server.url, function.name, version, refused=429) for _ in range(scene.invocations)]
    _wait_until_quiet(lambda: len(function.lines()))
    function.scale(0, 0)
    eventually(lambda: not function.environments(), what="the environment ending")
    return answers(function.lines(), told, function.name)


# -- what differs


def _differences(name: str, emulator: Answers, torpor: Answers) -> Iterator[Difference]:
    for what in [*emulator, *(what for what in torpor if what not in emulator)]:
        one, other = (side[what].fields() if what in side else {} for side in (emulator, torpor))
        if not (one and other):
            yield Difference(f"{name}: {what}", "answer", *("given" if side else NONE for side in (one, other)))
            continue
        for field in sorted(one | other):
            pair = one.get(field, NONE), other.get(field, NONE)
            if pair[0] != pair[1]:
                yield Difference(f"{name}: {what}", field, *pair)


def _is_as(found: Difference, meant: Difference) -> bool:
    pairs = zip(astuple(found), astuple(meant), strict=True)
    return all(re.fullmatch(".*".join(map(re.escape, star.split("*"))), text, re.DOTALL) for text, star in pairs)


@pytest.fixture(scope="module")
def found(server: TorporServer) -> Mapping[str, list[Difference]]:
    """By scene, of those that this host can play. All are played together, as they mostly wait."""
    require_sandbox(server)
    require(server, PYTHON)
    try:
        program = binary()
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the emulator is not here and could not be fetched: {error}")

    def play(name: str) -> list[Difference]:
        scene = SCENES[name]
        return list(_differences(name, _on_emulator(scene, program), _on_torpor(scene, server)))

    names = [name for name, scene in SCENES.items() if _runtime(scene) in (*server.runtimes, PROVIDED)]
    with ThreadPoolExecutor(TOGETHER) as pool:
        return dict(zip(names, pool.map(play, names), strict=True))


@pytest.mark.parametrize("scene", SCENES)
def test_answers_are_those_of_the_emulator_but_where_another_is_meant(
    found: Mapping[str, list[Difference]], scene: str
) -> None:
    if scene not in found:
        pytest.skip(f"this host has no interpreter for {MANAGED}")
    assert [one for one in found[scene] if not any(_is_as(one, meant) for meant in MEANT)] == []


def test_every_difference_that_is_meant_still_is_one(found: Mapping[str, list[Difference]]) -> None:
    if len(found) < len(SCENES):
        pytest.skip(f"not every scene was played: this host has no interpreter for {MANAGED}")
    everything = [one for differences in found.values() for one in differences]

    assert [meant for meant in MEANT if not any(_is_as(one, meant) for one in everything)] == []
