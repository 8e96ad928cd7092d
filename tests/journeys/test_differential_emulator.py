"""The same runtime, extensions and events under the cloud's own emulator and here: the same answers, but for a table.

Compared is what a runtime, its extensions and the callers are answered: status, body, and the fields that say something
about the call. Each difference that is meant stands in a table with its reason; one that does not is a fault, and so is
a row of the table that no longer holds.
"""

import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from tests.journeys.conftest import require, require_sandbox
from tests.support.emulator import HOUSED, EmulatorProcess, binary, house
from tests.support.extensions import layer
from tests.support.functions import PROVIDED, PYTHON, Package, archive
from tests.support.scenes import SCENES
from tests.support.scripted import Answers, Scene, Told, answers
from tests.support.server import TorporServer, eventually

from torpor.sandbox.interpreters import Language, choose, discover

pytestmark = pytest.mark.privileged
"""The scripts are programs for the `/var/lang` of a sandbox."""

FUNCTION = "scripted"
HANDLER = "app.handler"
NONE = "none"
"""A field, or a whole answer, that is not there."""
TOGETHER = 4
CALLED_WITH = {
    "Content-Type": "application/json",
    "X-Amz-Client-Context": "eyJhIjoxfQ==",
    "X-Amzn-Trace-Id": "Root=1-5f35ae12-0c0fec141ab77a00bc047aa2;Parent=2be948a625588e32;Sampled=1",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one answer. In the table `where` may have stars."""

    where: str
    """Scene, who was answered, and what."""
    field: str
    emulator: str
    torpor: str


MEANT: Mapping[Difference, str] = {}


# -- the two platforms


def _call(base: str, function: str) -> Told:
    """What the caller of one invocation gets. The emulator tells no content type of its own: it guesses one."""
    address = f"{base}/2015-03-31/functions/{function}/invocations"
    request = urllib.request.Request(address, data=b'{"n": 1}', headers=CALLED_WITH)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return _told(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return _told(error.code, error.headers, error.read())


def _told(status: int, headers: Mapping[str, str], body: bytes) -> Told:
    kept = {name: value for name, value in headers.items() if name.lower() == "x-amz-function-error"}
    return Told(status, kept, body.decode())


def _on_emulator(scene: Scene, program: Path) -> Answers:
    files = {f"var/task/{path}": text for path, text in scene.package.items()}
    files |= {f"opt/{path}": text for path, text in scene.layer.items()}
    environment = {
        "PATH": "/usr/bin:/bin",
        "LD_LIBRARY_PATH": "/var/lang/lib",
        "AWS_LAMBDA_FUNCTION_NAME": FUNCTION,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(scene.timeout),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_REGION": "us-east-1",
        "_HANDLER": HANDLER,
    }
    with tempfile.TemporaryDirectory(prefix="torpor-emulator-") as name, tempfile.TemporaryFile() as output:
        before = house(Path(name), program, files, lang=_interpreter())
        emulator = EmulatorProcess(HOUSED, [], environment, folder=Path(name), before=before, output=output)
        try:
            eventually(emulator.listens, what="the emulator listening")
            told = [_call(f"http://127.0.0.1:{emulator.port}", "function") for _ in range(scene.invocations)]
            emulator.process.send_signal(signal.SIGTERM)
            emulator.process.wait(10)
        finally:
            emulator.stop()
        output.seek(0)
        return answers(output.read().decode().splitlines(), told, FUNCTION)


def _interpreter() -> str:
    """The prefix of the one that the server chooses."""
    python = choose(discover(), Language.PYTHON, 3, int(PYTHON.partition(".")[2]))
    assert python is not None
    return python.prefix


def _on_torpor(scene: Scene, server: TorporServer) -> Answers:
    """A managed runtime, for its interpreter; the script takes the place of its program."""
    configuration = {"Timeout": scene.timeout}
    package = Package(archive=archive(scene.package), runtime=PYTHON, handler=HANDLER)
    if scene.is_scripted:
        configuration["Environment"] = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/bootstrap"}}
    else:
        package = Package(archive=package.archive, runtime=PROVIDED, handler=HANDLER)
    with ExitStack() as stack:
        arn = stack.enter_context(layer(server, scene.layer or {"nothing": ""}))
        function = stack.enter_context(server.deployed(package, Layers=[arn], **configuration))
        told = [_call(server.url, function.name) for _ in range(scene.invocations)]
        function.recycle()
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
    values = (found.field, found.emulator, found.torpor) == (meant.field, meant.emulator, meant.torpor)
    return values and fnmatchcase(found.where, meant.where)


@pytest.fixture(scope="module")
def found(server: TorporServer) -> Mapping[str, list[Difference]]:
    """By scene. All are played together, as they mostly wait."""
    require_sandbox(server)
    require(server, PYTHON)
    try:
        program = binary()
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the emulator is not here and could not be fetched: {error}")

    def play(name: str) -> list[Difference]:
        scene = SCENES[name]
        return list(_differences(name, _on_emulator(scene, program), _on_torpor(scene, server)))

    with ThreadPoolExecutor(TOGETHER) as pool:
        return dict(zip(SCENES, pool.map(play, SCENES), strict=True))


@pytest.mark.parametrize("scene", SCENES)
def test_answers_are_those_of_the_emulator_but_where_another_is_meant(
    found: Mapping[str, list[Difference]], scene: str
) -> None:
    assert [one for one in found[scene] if not any(_is_as(one, meant) for meant in MEANT)] == []


def test_every_difference_that_is_meant_still_is_one(found: Mapping[str, list[Difference]]) -> None:
    everything = [one for differences in found.values() for one in differences]

    assert [meant for meant in MEANT if not any(_is_as(one, meant) for one in everything)] == []
