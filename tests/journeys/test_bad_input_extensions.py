"""Extensions that break the rules: the function's callers get a clear answer, the server and others live on."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import dedent
from typing import Any

import pytest
from tests.journeys.conftest import MakeServer, require
from tests.support.extensions import SUBSCRIBES, WATCH, extended
from tests.support.functions import PYTHON, python
from tests.support.remains import memory_of
from tests.support.server import Function, TorporServer, eventually

pytestmark = pytest.mark.privileged
"""The extensions are programs for the `/var/lang` of a sandbox."""

MIB = 1 << 20
HELLO = python("""
    def handler(event, context):
        for number in range(event.get("count", 0)):
            print("number", number, "x" * event.get("width", 0))
        time.sleep(event.get("sleep", 0))
        return BOOT
""")


@pytest.fixture(scope="module")
def quick(make_server: MakeServer) -> Iterator[TorporServer]:
    """A server with a short Init."""
    server = make_server(init_limit=1.5)
    require(server, PYTHON)
    yield server


@contextmanager
def with_extension(server: TorporServer, source: str, **configuration: Any) -> Iterator[Function]:
    require(server, PYTHON)
    with extended(server, HELLO, {"watch": source}, **configuration) as function:
        yield function


def _kinds(function: Function, prefix: str = "watch got ") -> list[str]:
    lines = [line.removeprefix(prefix) for line in function.lines() if line.startswith(prefix)]
    return [json.loads(line)["type"] for line in lines]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("time.sleep(60)", "Sandbox.Timedout"),
        ('register("INVOKE")\ntime.sleep(60)', "Sandbox.Timedout"),
        ("while True:\n    pass", "Sandbox.Timedout"),
        ("sys.exit(0)", "Extension.Crash"),
        ('register("INVOKE")\nsys.exit(0)', "Extension.Crash"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "Extension.Crash"),
        (
            'register()\ncall("POST", "init/error", "{", Identifier=identifier, Function_Error_Type="x")\n'
            "time.sleep(60)",
            "Extension.InitError",
        ),
    ],
    ids=["never registers", "never asks", "loops", "exits", "exits registered", "crashes", "reports an error"],
)
def test_extension_that_spoils_init_fails_the_invocation_in_its_name(
    quick: TorporServer, source: str, kind: str
) -> None:
    with with_extension(quick, source, Timeout=2) as function:
        reply = function.invoke()
        assert reply.error == "Unhandled" and reply.payload["errorType"] == kind
        assert reply.elapsed < 8
        told = [line for line in function.lines() if line.startswith("INIT_REPORT")]
    assert told and ("timeout" in told[0]) == (kind == "Sandbox.Timedout")


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ("sys.exit(3)", "Extension.Crash"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "Extension.Crash"),
        (
            'call("POST", "exit/error", "", Identifier=identifier, Function_Error_Type="Extension.x")\ntime.sleep(60)',
            "Extension.ExitError",
        ),
        ("while True:\n    pass", "timeout"),
    ],
    ids=["exits", "is killed", "gives up", "loops"],
)
def test_extension_that_fails_in_an_invocation_fails_it_and_the_next_one_begins_anew(
    server: TorporServer, end: str, kind: str
) -> None:
    source = 'register("INVOKE", "SHUTDOWN")\nevent = next_event()\nnext_event() if os.path.exists("/tmp/was") else 0\n'
    source += f'open("/tmp/was", "w").close()\n{end}'
    with with_extension(server, source, Timeout=2) as function:
        answered = function.invoke({"sleep": 0.5})
        report = eventually(lambda: [line for line in function.lines() if line.startswith("REPORT")], what="a report")
        assert kind in report[0]
        if kind != "timeout":
            assert answered.payload["errorType"] == kind
        eventually(lambda: "uninitialized" in [entry["phase"] for entry in function.environments()], what="the reset")
        again = function.invoke()
        assert not again.error and len(again.payload) == 32
        assert len({event.stream for event in function.logs()}) == 1


def test_extension_that_loops_in_its_shutdown_is_killed(server: TorporServer) -> None:
    source = WATCH.replace("break", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n        while True: pass")
    with with_extension(server, source) as function:
        function.invoke()
        began = time.time()
        function.recycle()
        assert 1.5 < time.time() - began < 5
        assert function.phases()[-1]["exits"]["watch"] == "signal 9"


@pytest.mark.parametrize("code", [0, 7])
def test_extension_may_exit_in_its_shutdown_with_any_status(server: TorporServer, code: int) -> None:
    with with_extension(server, WATCH.replace("break", f"sys.exit({code})")) as function:
        function.invoke()
        function.recycle()
        assert function.phases()[-1]["exits"]["watch"] == f"exit {code}"
        assert not any("Status: error" in line for line in function.lines())


def test_eleventh_extension_is_refused_and_its_end_is_the_end_of_init(quick: TorporServer) -> None:
    source = """
        status, headers, body = call("POST", "register", "{}", Name=NAME)
        say("registered", status, body.decode())
        if status != 200:
            sys.exit(1)
        identifier = headers["Lambda-Extension-Identifier"]
        while True:
            next_event()
    """
    sources = {f"watch-{number}": source for number in range(11)}
    with extended(quick, HELLO, sources, MemorySize=512, Timeout=15) as function:
        reply = function.invoke()
        assert reply.payload["errorType"] in ("Extension.Crash", "Sandbox.Timedout")
        refused = [line for line in function.lines() if " registered 403" in line]
    assert refused and "Extension.TooManyExtensions" in refused[0]


def test_extension_that_floods_its_output_harms_nobody(server: TorporServer) -> None:
    source = """
        register("INVOKE", "SHUTDOWN")
        def flood():
            while True:
                sys.stdout.write("y" * 4000 + "\\n")
        threading.Thread(target=flood, daemon=True).start()
        while True:
            next_event()
    """
    before = memory_of(server.process.pid)
    with with_extension(server, source) as function, server.deployed(HELLO) as other:
        for _ in range(3):
            assert not function.invoke({"sleep": 0.5}).error
            assert not other.invoke().error
        assert memory_of(server.process.pid) - before < 200 * MIB
        assert not any("yyyy" in line for line in other.lines())


SELF = SUBSCRIBES + dedent("""
    register("INVOKE", "SHUTDOWN")
    listen(4243)
    say(*subscribe(4243, ["platform", "function", "extension"]))
    while next_event()["eventType"] == "INVOKE":
        pass
""")
"""Prints whatever it is told, and is told whatever it prints."""


def test_extension_that_subscribes_to_its_own_lines_goes_round_but_stays_bounded(server: TorporServer) -> None:
    before = memory_of(server.process.pid)
    with with_extension(server, SELF, Timeout=10) as function, server.deployed(HELLO) as other:
        for _ in range(3):
            assert not function.invoke({"sleep": 0.5}).error
            assert not other.invoke().error
        assert memory_of(server.process.pid) - before < 200 * MIB
        function.wait_until_frozen()
        assert any(line.startswith("watch got") and '"type": "extension"' in line for line in function.lines())


TAKES_NOTHING = SUBSCRIBES + dedent("""
    import socket
    register("INVOKE", "SHUTDOWN")
    listener = socket.create_server(("127.0.0.1", 4243))
    def answer():
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=serve, args=(peer,), daemon=True).start()
    END = b"\\r\\n\\r\\n"
    def serve(peer):
        BEHAVES
    threading.Thread(target=answer, daemon=True).start()
    say(*subscribe(4243, ["platform", "function"]))
    while next_event()["eventType"] == "INVOKE":
        pass
""")


@pytest.mark.parametrize(
    "behaves",
    [
        "time.sleep(60)",
        "peer.close()",
        'peer.recv(100); peer.sendall(b"garbage " * 10000); peer.close()',
        'peer.recv(100); peer.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n" + b"z" * 1000); time.sleep(60)',
        'peer.recv(100); peer.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")\n    while True: peer.sendall(b"z" * 60000)',
        'peer.recv(100); peer.sendall(b"HTTP/1.1 302 X\\r\\nLocation: http://1.2.3.4/\\r\\nContent-Length: 0" + END)',
        'peer.recv(100); peer.sendall(b"HTTP/1.1 100 X\\r\\n\\r\\n" * 10000); peer.close()',
    ],
    ids=[
        "never answers",
        "hangs up",
        "talks garbage",
        "answers for ever",
        "answers without end",
        "redirects",
        "only interim answers",
    ],
)
def test_listener_that_takes_nothing_harms_neither_function_nor_other_subscribers(
    server: TorporServer, behaves: str
) -> None:
    require(server, PYTHON)
    good = SUBSCRIBES + dedent("""
        register("INVOKE", "SHUTDOWN")
        listen(4244)
        say(*subscribe(4244, ["platform"]))
        while next_event()["eventType"] == "INVOKE":
            pass
        time.sleep(0.2)
    """)
    sources = {"bad": TAKES_NOTHING.replace("BEHAVES", behaves), "good": good}
    before = memory_of(server.process.pid)
    with extended(server, HELLO, sources, Timeout=10, MemorySize=512) as function:
        for _ in range(3):
            assert not function.invoke({"count": 2000, "width": 1000}).error
        function.recycle()
        kinds = _kinds(function, "good got ")
    assert kinds.count("platform.start") == 3 and kinds.count("platform.runtimeDone") == 3
    assert memory_of(server.process.pid) - before < 200 * MIB


def test_consumer_that_is_too_slow_is_told_what_it_has_lost(server: TorporServer) -> None:
    source = SUBSCRIBES.replace('say("got", json.dumps(event))', "pass") + dedent("""
        import socket
        register("INVOKE", "SHUTDOWN")
        real = Listener.do_POST
        def slow(self):
            time.sleep(1.0 if not heard else 0.0)
            real(self)
        Listener.do_POST = slow
        listen(4243)
        subscribe(4243, ["platform", "function"])
        while (event := next_event())["eventType"] == "INVOKE":
            wait_for("platform.runtimeDone", event["requestId"])
        time.sleep(0.5)
        lost = [e["record"] for e in heard if e["type"] == "platform.logsDropped"]
        count = sum(record["droppedRecords"] for record in lost)
        say("lost", json.dumps([count, len(numbers()), numbers() == sorted(numbers())]))
    """)
    with with_extension(server, source, Timeout=20, MemorySize=1024) as function:
        function.invoke({"count": 20_000, "width": 900, "sleep": 1})
        function.recycle()
        line = next(line for line in function.lines() if line.startswith("watch lost"))
    lost, heard, in_order = json.loads(line.partition("lost ")[2])
    assert lost > 0 and in_order and 20_000 - 50 <= lost + heard <= 20_000 + 50


def test_flood_of_subscriptions_leaves_one(server: TorporServer) -> None:
    source = SUBSCRIBES + dedent("""
        register("INVOKE", "SHUTDOWN")
        listen(4243)
        answers = {subscribe(4243, ["platform"]) for _ in range(500)}
        nobody = [{"protocol": "TCP", "port": port} for port in (1, 9001)]
        refused = [subscribe(4243, ["platform"], destination=one)[0] for one in nobody]
        say("answers", json.dumps([*answers, refused]))
        while next_event()["eventType"] == "INVOKE":
            pass
        time.sleep(0.2)
    """)
    with with_extension(server, source) as function:
        function.invoke()
        function.recycle()
        line = next(line for line in function.lines() if line.startswith("watch answers"))
        kinds = _kinds(function)
    assert json.loads(line.partition("answers ")[2]) == [[200, '"OK"'], [400, 400]]
    assert kinds.count("platform.start") == kinds.count("platform.report") == 1
    assert kinds.count("platform.initStart") == 1
