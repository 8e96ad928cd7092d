"""A cloned Python interpreter is, to the function, the same as a freshly booted one."""

import json
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from tests.support.linux_sandbox import (
    PYTHON,
    Linux,
    answer,
    is_root,
    open_linux,
    python_missing,
    python_process,
    pythons,
    run_shell,
)

from torpor.sandbox.port import ProcessExit

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(not is_root(), reason="needs root"),
    pytest.mark.skipif(python_missing(), reason="the Python runtime's client is not installed"),
]

LOOK = """
import gc, os, signal, sys, threading
def handler(event, context):
    return {
        "path": sys.path, "argv": sys.argv, "executable": sys.executable, "prefix": sys.prefix,
        "flags": str(sys.flags), "orig_argv": sys.orig_argv,
        "environment": {k: v for k, v in os.environ.items()},
        "cwd": os.getcwd(), "umask": os.umask(0o022), "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getegid()],
        "stdin": os.path.realpath("/proc/self/fd/0"),
        "encodings": [sys.stdout.encoding, sys.stderr.errors, sys.getfilesystemencoding()],
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD)],
        "main": sorted(n for n in vars(sys.modules["__main__"]) if n in ("__file__", "__name__")),
        "main_file": sys.modules["__main__"].__file__,
        "own": sorted(n for n in sys.modules if n.split(".")[0] in ("launcher", "torpor")),
        "gc": gc.isenabled(), "threads": threading.active_count(), "session": os.getsid(0) == os.getpid(),
        "command": open("/proc/self/cmdline").read(),
        "shown": sorted(e for e in open("/proc/self/environ").read().split("\\0") if e),
        "descriptors": sorted(int(n) for n in os.listdir("/proc/self/fd"))[:3],
        "handler_module": __file__, "json": sys.modules["json"].__file__, "blocked": len(signal.pthread_sigmask(0, [])),
    }
"""


@pytest_asyncio.fixture
async def linux() -> AsyncIterator[Linux]:
    async with open_linux() as opened:
        yield opened


@pytest.mark.parametrize("runtime", pythons())
async def test_clone_sees_what_a_booted_interpreter_sees(linux: Linux, runtime: str) -> None:
    seen = []
    for clone in (True, False):
        sandbox, _ = await linux.python(LOOK, clone=clone, runtime=runtime, STAGE="blue")
        seen.append(json.loads(await answer(sandbox)))
        await sandbox.destroy()
    assert seen[0] == seen[1]
    assert seen[0]["own"] == []
    assert seen[0]["environment"]["STAGE"] == "blue"


async def test_clones_draw_different_random_numbers(linux: Linux) -> None:
    source = """
import os, random, ssl, tempfile, uuid
def handler(event, context):
    return [random.random(), str(uuid.uuid4()), os.urandom(8).hex(), ssl.RAND_bytes(8).hex(), tempfile.mktemp()]
"""
    drawn = []
    for _ in range(3):
        sandbox, _ = await linux.python(source, clone=True)
        drawn.append(json.loads(await answer(sandbox)))
    assert all(len(set(column)) == 3 for column in zip(*drawn, strict=True))


@pytest.mark.parametrize("clone", [True, False], ids=["cloned", "booted"])
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("sys.exit(3)", {"code": 3}),
        ("sys.exit()", {"code": 0}),
        ("os._exit(4)", {"code": 4}),
        ("os.kill(os.getpid(), signal.SIGTERM)", {"signal": signal.SIGTERM}),
        ("os.abort()", {"signal": signal.SIGABRT}),
        ("ctypes.string_at(0)", {"signal": signal.SIGSEGV}),
    ],
)
async def test_end_of_a_module_is_told_as_it_was(
    linux: Linux, statement: str, expected: dict[str, int], clone: bool
) -> None:
    source = f"import atexit, ctypes, os, signal, sys\natexit.register(print, 'bye')\n{statement}\n"
    _, listener = await linux.python(source, clone=clone)
    assert await listener.wait_exit("runtime") == ProcessExit(name="runtime", **expected)
    assert ("bye" in listener.text) == statement.startswith("sys.exit")


async def test_clone_that_fails_uncaught_prints_a_traceback_and_exits_1(linux: Linux) -> None:
    sandbox, listener = await linux.python("def handler(event, context): pass", clone=True)
    sandbox.api_socket.close()
    exit = await listener.wait_exit("runtime")
    assert exit == ProcessExit(name="runtime", code=1)
    assert "Traceback (most recent call last):" in listener.text


async def test_module_named_like_one_of_ours_is_the_functions_own(linux: Linux) -> None:
    code = linux.code(
        "named", {"app.py": "import launcher\ndef handler(e, c): return launcher.X", "launcher.py": "X = 1"}
    )
    sandbox, _ = await linux.make(PYTHON, code=code)
    sandbox.start(python_process(sandbox, clone=True))
    assert await answer(sandbox) == b"1"


async def test_second_runtime_after_a_reset_is_fresh(linux: Linux) -> None:
    source = "import os\nopen('/tmp/boots', 'a').write('x')\ndef handler(e, c): return open('/tmp/boots').read()"
    sandbox, listener = await linux.python(source, clone=True)
    assert await answer(sandbox) == b'"x"'
    sandbox.kill_all()
    await listener.wait_exit("runtime")
    sandbox.start(python_process(sandbox, clone=True))
    assert await answer(sandbox) == b'"xx"'


async def test_clone_is_seen_by_other_processes_of_its_sandbox(linux: Linux) -> None:
    sandbox, listener = await linux.python("print('loaded')\ndef handler(e, c): pass", clone=True)
    await listener.wait_text("loaded")
    text = await run_shell(sandbox, listener, "ps -eo user=,args=; cat /proc/[0-9]*/environ")
    assert f"/var/lang/bin/{PYTHON} -S /var/runtime/bootstrap.py" in text
    assert "_HANDLER=app.handler" in text


async def test_boot_only_provider_executes_the_interpreter() -> None:
    source = "import os\ndef handler(e, c): return os.readlink('/proc/self/exe')\nprint(open('/proc/self/maps').read())"
    async with open_linux(boot_only=True) as linux:
        sandbox, listener = await linux.python(source, clone=True)
        assert b"/var/lang/bin/python" in await answer(sandbox)
        sandbox.drain_output()
        assert "_ctypes" not in listener.text


@pytest.mark.parametrize("clone", [True, False], ids=["cloned", "booted"])
async def test_workers_of_the_official_client_write_to_connections_of_their_own(linux: Linux, clone: bool) -> None:
    source = "import os, sys\nprint('loaded', os.getpid())\nprint('failed?', file=sys.stderr)\ndef handler(e, c): pass"
    sandbox, listener = await linux.make(PYTHON, code=linux.code("workers", {"app.py": source}))
    process = python_process(sandbox, clone=clone, AWS_LAMBDA_MAX_CONCURRENCY="3")
    sandbox.start(replace(process, worker_log_variable="_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET"))
    await listener.wait_for(lambda: len(listener.workers) == 6)
    written = sorted(bytes(data).decode().split()[0] for data in listener.workers.values())
    assert written == ["failed?"] * 3 + ["loaded"] * 3
    assert "loaded" not in listener.text
    sandbox.kill_all()
    await listener.wait_for(lambda: len(listener.ended_workers) == 6)
