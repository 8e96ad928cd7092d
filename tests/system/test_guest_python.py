"""The Python runtime against a real Runtime API, without a sandbox: booted, and cloned from a warm interpreter."""

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.runtime_api import FUNCTION_ARN, Runtime, running

from torpor.sandbox.images import DEFAULT_ROOT, ImageCatalog
from torpor.sandbox.interpreters import discover

CATALOG = ImageCatalog(DEFAULT_ROOT, discover())
RUNTIMES = [name for name in CATALOG.present() if name.startswith("python") and CATALOG.installed(name)]
NEWEST = RUNTIMES[-1] if RUNTIMES else ""
WAYS = ["boot", "clone"]

pytestmark = pytest.mark.skipif(not RUNTIMES, reason="no Python client installed: python -m torpor.sandbox.clients")

# What the launcher does, less the sandbox: preload with no function in sight, fork, be the function's interpreter.
FORK = """
import json, os, sys, time
runtime_dir, address, environment = sys.argv[1], sys.argv[2], dict(os.environ)
os.environ.clear()
os.environ["AWS_LAMBDA_RUNTIME_API"] = address or environment["AWS_LAMBDA_RUNTIME_API"]
sys.path.insert(0, runtime_dir)
from torpor_guest import clone
clone.preload(inside=False)
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256)
os.environ.clear()
os.environ.update(environment)
time.tzset()
clone.run(environment["_HANDLER"])
"""


@contextmanager
def serve(
    task: Path,
    files: Mapping[str, str],
    handler: str = "index.handler",
    *,
    way: str = "boot",
    runtime: str = "",
    opt: str = "/opt",
    pass_fds: tuple[int, ...] = (),
    preloaded_address: str = "",
    **environment: str,
) -> Iterator[Runtime]:
    for name, text in files.items():
        (task / name).parent.mkdir(parents=True, exist_ok=True)
        (task / name).write_text(text)
    image = CATALOG.resolve(runtime or NEWEST)
    assert image.runtime_dir is not None and image.lang is not None and image.host_executable is not None
    image = image.placed({"lang": image.lang, "runtime": image.runtime_dir, "task": str(task), "opt": opt})
    environment = {**image.environment, "LAMBDA_RUNTIME_DIR": str(image.runtime_dir), **environment}
    argv = list(image.argv)
    if way == "clone":
        argv = [argv[0], "-I", "-S", "-c", FORK, str(image.runtime_dir), preloaded_address]
    with running(argv, task, handler, pass_fds=pass_fds, **environment) as started:
        yield started


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("way", WAYS)
def test_handler_answers_on_every_installed_version(tmp_path: Path, runtime: str, way: str) -> None:
    code = """
import sys
count = 0
def handler(event, context):
    global count
    count += 1
    return [count, event["x"], "%d.%d" % sys.version_info[:2]]
"""
    with serve(tmp_path, {"index.py": code}, way=way, runtime=runtime) as started:
        version = runtime.removeprefix("python")
        assert started.api.invoke({"x": "ü"}).json == [1, "ü", version]
        assert started.api.invoke({"x": 2}).json == [2, 2, version]


def test_two_invocations_share_one_connection(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.py": "def handler(event, context): return None"}) as started:
        assert [started.api.invoke({}).json for _ in range(3)] == [None] * 3
        assert started.api.connections <= 2


@pytest.mark.parametrize("way", WAYS)
def test_context_tells_function_and_invocation(tmp_path: Path, way: str) -> None:
    code = """
import os
def handler(event, context):
    return [context.function_name, context.memory_limit_in_mb, context.invoked_function_arn,
            context.aws_request_id, 5000 < context.get_remaining_time_in_millis() <= 10000,
            os.environ.get("_X_AMZN_TRACE_ID")]
"""
    with serve(tmp_path, {"index.py": code}, way=way) as started:
        posted = started.api.invoke({}, Lambda_Runtime_Trace_Id="Root=1-2-3")
    assert posted.json == ["f", "128", FUNCTION_ARN, posted.request_id, True, "Root=1-2-3"]


@pytest.mark.parametrize("way", WAYS)
def test_failing_handler_posts_the_error_and_lives_on(tmp_path: Path, way: str) -> None:
    with serve(tmp_path, {"index.py": "def handler(event, context):\n    raise ValueError('bad')"}, way=way) as started:
        posted = [started.api.invoke({}) for _ in range(2)][1]
        output = started.stopped()
    assert posted.kind == "error"
    assert posted.json["errorType"] == "ValueError"
    assert posted.json["errorMessage"] == "bad"
    frame = f"  File \"{tmp_path}/index.py\", line 2, in handler\n    raise ValueError('bad')\n"
    assert posted.json["stackTrace"] == [frame]
    assert "[ERROR] ValueError: bad\rTraceback (most recent call last):\r" in output


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("files", "handler", "kind"),
    [
        ({}, "index.handler", "Runtime.ImportModuleError"),
        ({"index.py": "x ="}, "index.handler", "Runtime.UserCodeSyntaxError"),
        ({"index.py": ""}, "index.handler", "Runtime.HandlerNotFound"),
        ({"index.py": ""}, "index", "Runtime.MalformedHandlerName"),
        ({"index.py": "1 / 0"}, "index.handler", "ZeroDivisionError"),
    ],
)
def test_failed_init_is_posted_and_ends_the_process(
    tmp_path: Path, files: Mapping[str, str], handler: str, kind: str, way: str
) -> None:
    with serve(tmp_path, files, handler, way=way) as started:
        posted = started.api.receive()
        status, _ = started.ended()
    assert (posted.kind, posted.json["errorType"], status) == ("init/error", kind, 1)
    assert posted.headers["Lambda-Runtime-Function-Error-Type"] == kind


@pytest.mark.parametrize("way", WAYS)
def test_text_logs_carry_level_time_and_request(tmp_path: Path, way: str) -> None:
    code = """
import logging
def handler(event, context):
    logging.getLogger().setLevel("INFO")
    logging.info("hello")
    print("printed")
"""
    with serve(tmp_path, {"index.py": code}, way=way) as started:
        posted = started.api.invoke({})
        lines = started.stopped().splitlines()
    assert lines[0].startswith("[INFO]\t20") and lines[0].endswith(f"Z\t{posted.request_id}\thello")
    assert lines[1] == "printed"


@pytest.mark.parametrize("way", WAYS)
def test_json_log_settings_are_those_of_the_function(tmp_path: Path, way: str) -> None:
    code = """
import logging
def handler(event, context):
    logging.info("quiet")
    logging.warning("loud")
    raise KeyError("k")
"""
    settings = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "WARN"}
    with serve(tmp_path, {"index.py": code}, way=way, **settings) as started:
        posted = started.api.invoke({})
        warned, failed = (json.loads(line) for line in started.stopped().splitlines())
    assert (warned["level"], warned["message"], warned["requestId"]) == ("WARNING", "loud", posted.request_id)
    assert (failed["level"], failed["errorType"]) == ("ERROR", "KeyError")


@pytest.mark.parametrize("way", WAYS)
def test_framed_log_descriptor_gets_one_frame_an_event(tmp_path: Path, way: str) -> None:
    code = "import logging\ndef handler(event, context): logging.warning('a\\nb')"
    reader, writer = os.pipe()
    extra = {"_LAMBDA_TELEMETRY_LOG_FD": str(writer)}
    with serve(tmp_path, {"index.py": code}, way=way, pass_fds=(writer,), **extra) as started:
        os.close(writer)
        posted = started.api.invoke({})
        assert started.stopped() == ""
    with os.fdopen(reader, "rb") as file:
        frames = file.read()
    kind, length, _ = struct.unpack(">IIQ", frames[:16])
    assert kind & 0xFFFFFFE3 == 0xA55A0003
    assert len(frames) == 16 + length
    assert frames[16:].decode().endswith(f"\t{posted.request_id}\ta\nb\n")


@pytest.mark.parametrize("way", WAYS)
def test_imports_come_from_code_then_runtime_and_never_from_the_host(tmp_path: Path, way: str) -> None:
    code = """
import sys, boto3, helper
def handler(event, context):
    return {"path": sys.path, "helper": helper.NAME, "boto3": boto3.__file__, "exit": callable(exit)}
"""
    files = {"index.py": code, "helper.py": "NAME = 'mine'"}
    with serve(tmp_path, files, way=way) as started:
        told = started.api.invoke({}).json
    image = CATALOG.resolve(NEWEST)
    library = f"{image.lang}/lib/{NEWEST}"
    path = told.pop("path")
    if way == "boot":
        assert path[1:3] == [f"/opt/python/lib/{NEWEST}/site-packages", "/opt/python"]
    assert path[0] == str(tmp_path)
    assert path[3:5] == [f"{library}/site-packages", image.runtime_dir]
    assert path[-2:] == [library, f"{library}/lib-dynload"]
    assert told == {"helper": "mine", "boto3": f"{image.runtime_dir}/boto3/__init__.py", "exit": True}


def test_layer_folder_is_searched_after_the_code(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "python").mkdir(parents=True)
    (layer / "python" / "shared.py").write_text("NAME = 'layer'")
    task = tmp_path / "task"
    code = "import shared\ndef handler(event, context): return shared.NAME"
    with serve(task, {"index.py": code}, opt=str(layer)) as started:
        assert started.api.invoke({}).json == "layer"
    with serve(task, {"index.py": code, "shared.py": "NAME = 'code'"}, opt=str(layer)) as started:
        assert started.api.invoke({}).json == "code"


def test_clones_draw_different_random_numbers(tmp_path: Path) -> None:
    code = "import random, uuid\ndrawn = [random.random(), str(uuid.uuid4())]\ndef handler(e, c): return drawn"
    drawn = []
    for _ in range(2):
        with serve(tmp_path, {"index.py": code}, way="clone") as started:
            drawn.append(started.api.invoke({}).json)
    assert drawn[0][0] != drawn[1][0] and drawn[0][1] != drawn[1][1]


def test_clone_with_another_api_address_is_booted_instead(tmp_path: Path) -> None:
    code = "def handler(event, context): return 'served'"
    with serve(tmp_path, {"index.py": code}, way="clone", preloaded_address="127.0.0.1:1") as started:
        assert started.api.invoke({}).json == "served"


def test_preloaded_code_bears_the_names_it_has_in_a_sandbox() -> None:
    image = CATALOG.resolve(NEWEST)
    assert image.host_executable is not None and image.runtime_dir is not None and image.lang is not None
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from torpor_guest import clone
clone.preload()
import json, logging
names = {str(getattr(module, "__file__", "")) for module in sys.modules.values()}
print(json.dumps([json.loads.__code__.co_filename, logging.__path__, sorted(names)]))
"""
    argv = [image.host_executable, "-I", "-S", "-c", program, image.runtime_dir]
    loads, folders, names = json.loads(subprocess.run(argv, capture_output=True, check=True, env={}).stdout)
    assert loads == f"/var/lang/lib/{NEWEST}/json/__init__.py"
    assert folders == [f"/var/lang/lib/{NEWEST}/logging"]
    assert [name for name in names if name.startswith((image.lang + "/", image.runtime_dir))] == []


@pytest.mark.parametrize("tools", ["bash", "curl"])
def test_shell_example_serves_with_bash_or_with_curl(tmp_path: Path, tools: str) -> None:
    names = {"bash": ["bash"], "curl": ["curl", "sed", "tr"]}[tools]
    for name in names:
        real = shutil.which(name)
        if real is None:
            pytest.skip(f"no {name} on this host")
        (tmp_path / name).symlink_to(real)
    events = [{"name": 'ü\n"'}, {}, {"text": "é" * 60_000}]
    program = Path(__file__).parents[2] / "examples" / "hello-provided" / "bootstrap"
    with running([str(program)], tmp_path, "any", PATH=str(tmp_path), TMPDIR=str(tmp_path)) as started:
        told = [started.api.invoke(event).json for event in events]
    assert [answer["environment_used"] for answer in told] == [1, 2, 3]
    assert [answer["event"] for answer in told] == events
