"""Required facts that take an external extension to show, seen from outside: deploy, send, look."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from tests.journeys.conftest import MakeServer, require
from tests.support.extensions import WATCH, extended, extension, layer
from tests.support.functions import PYTHON, python
from tests.support.server import Function, LogEvent, Reply, TorporServer, eventually

pytestmark = pytest.mark.privileged
"""The extensions are programs for the `/var/lang` of a sandbox."""

HELLO = python("""
    print("module", time.time())
    def handler(event, context):
        if event.get("exit"):
            os._exit(event["exit"])
        time.sleep(event.get("sleep", 0))
        left = context.get_remaining_time_in_millis()
        return {"boot": BOOT, "pid": os.getpid(), "deadline": time.time() * 1000 + left}
""")
WORKS = """
    seconds = float(os.environ["SECONDS"])
    register("INVOKE", "SHUTDOWN")
    while True:
        event = next_event()
        if event["eventType"] == "SHUTDOWN":
            say("SHUTDOWN", event["shutdownReason"])
            break
        say("INVOKE", event["requestId"], event["deadlineMs"])
        time.sleep(seconds)
        say("next", time.time())
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A server that removes environments soon, and the port of a collector that its functions can reach."""

    server: TorporServer
    collector: int
    collected: list[bytes]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of a function that is deleted again."""

    replies: list[Reply]
    events: list[LogEvent]
    phases: list[dict[str, Any]]

    @property
    def lines(self) -> list[str]:
        return [line for event in self.events for line in event.message.splitlines()]

    def words(self, start: str) -> list[list[str]]:
        """The words after `start` of each line that begins with it."""
        return [line[len(start) :].split() for line in self.lines if f"{line} ".startswith(f"{start} ")]


Scene = Callable[[Stage], Seen]


def _seen(function: Function, *replies: Reply) -> Seen:
    return Seen(replies=list(replies), events=function.logs(), phases=function.phases())


def _let_idle_out(function: Function) -> None:
    eventually(lambda: not function.environments(), within=15.0, what="the environment ending")


def _shut_down(stage: Stage, source: str, package: Any = HELLO, **variables: str) -> Seen:
    """One invocation, then idle removal."""
    configuration: dict[str, Any] = {"Environment": {"Variables": variables}} if variables else {}
    with extended(stage.server, package, {"watch": source}, **configuration) as function:
        reply = function.invoke()
        _let_idle_out(function)
        return _seen(function, reply)


# -- scenes that mostly wait: they all run beside each other --------------------

NOTES_THE_END = """
    register("INVOKE", "SHUTDOWN")
    while (event := next_event())["eventType"] == "INVOKE":
        say("INVOKE", event["requestId"])
    say("SHUTDOWN", event["shutdownReason"], event["deadlineMs"] - time.time() * 1000, *os.listdir("/tmp"))
"""


def two_watchers_idle_out(stage: Stage) -> Seen:
    package = python("""
        def handler(event, context):
            open("/tmp/kept", "w").write("x")
    """)
    with extended(stage.server, package, {"one": NOTES_THE_END, "two": NOTES_THE_END}) as function:
        reply = function.invoke()
        _let_idle_out(function)
        return _seen(function, reply)


def last_words(stage: Stage) -> Seen:
    source = """
        register("SHUTDOWN")
        next_event()
        for part in (b"first half, ", b"second half"):
            http.client.HTTPConnection("host.torpor.internal", int(os.environ["COLLECTOR"])).request("POST", "/", part)
            time.sleep(1.0 if part.startswith(b"first") else 0.0)
        say("sent")
    """
    return _shut_down(stage, source, COLLECTOR=str(stage.collector))


TICKS_FOR_EVER = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    register("INVOKE", "SHUTDOWN")
    while (event := next_event())["eventType"] == "INVOKE":
        pass
    say("SHUTDOWN", time.time(), event["deadlineMs"] - time.time() * 1000)
    while True:
        say("tick", time.time())
        time.sleep(0.02)
"""


def extension_never_returns_from_shutdown(stage: Stage) -> Seen:
    return _shut_down(stage, TICKS_FOR_EVER)


def nobody_reacts_to_the_shutdown(stage: Stage) -> Seen:
    package = python("""
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def handler(event, context):
            pass
    """)
    return _shut_down(stage, TICKS_FOR_EVER, package)


def good_bad_good_idle(stage: Stage) -> Seen:
    source = """
        register("INVOKE", "SHUTDOWN")
        say("registered", identifier)
        while (event := next_event())["eventType"] == "INVOKE":
            pass
        say("SHUTDOWN", event["shutdownReason"], "runtime lives" if os.path.exists(f"/proc/{open('/tmp/pid').read()}")
            else "runtime gone")
    """
    package = python("""
        print("module")
        time.sleep(0.2)
        open("/tmp/pid", "w").write(str(os.getpid()))
        def handler(event, context):
            if event.get("exit"):
                os._exit(event["exit"])
            return BOOT
    """)
    with extended(stage.server, package, {"watch": source, "also": source}) as function:
        replies = [function.invoke(event) for event in ({}, {"exit": 3})]
        eventually(lambda: [entry["phase"] for entry in function.environments()] == ["uninitialized"], what="the reset")
        replies.append(function.invoke())
        _let_idle_out(function)
        return _seen(function, *replies)


def extension_outlasts_the_timeout(stage: Stage) -> Seen:
    with extended(
        stage.server, HELLO, {"watch": WORKS}, Timeout=3, Environment={"Variables": {"SECONDS": "4"}}
    ) as function:
        reply = function.invoke({"sleep": 2})
        eventually(lambda: any("watch SHUTDOWN" in line for line in function.lines()), what="the extension being told")
        return _seen(function, reply)


def init_takes_twelve_seconds_in_two_parts(stage: Stage) -> Seen:
    package = python("""
        time.sleep(6)
        def handler(event, context):
            pass
    """)
    with extended(stage.server, package, {"watch": "time.sleep(6)\n" + WATCH}, Timeout=1) as function:
        function.start()
        eventually(lambda: any("INIT_REPORT" in line for line in function.lines()), within=20.0, what="Init ending")
        return _seen(function)


def extension_asks_late_for_its_first_event(stage: Stage) -> Seen:
    source = """
        register("INVOKE")
        time.sleep(3)
        while True:
            next_event()
    """
    with extended(stage.server, HELLO, {"watch": source}) as function:
        return _seen(function, function.invoke())


def extension_exits_before_its_first_event(stage: Stage) -> Seen:
    with extended(stage.server, HELLO, {"watch": 'register("INVOKE")\nsys.exit(1)'}) as function:
        return _seen(function, function.invoke())


SCENES: tuple[Scene, ...] = (
    init_takes_twelve_seconds_in_two_parts,
    extension_outlasts_the_timeout,
    two_watchers_idle_out,
    last_words,
    extension_never_returns_from_shutdown,
    nobody_reacts_to_the_shutdown,
    good_bad_good_idle,
    extension_asks_late_for_its_first_event,
    extension_exits_before_its_first_event,
)


@contextmanager
def _collector(collected: list[bytes]) -> Iterator[int]:
    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collected.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@dataclass(frozen=True)
class Play:
    """All scenes, begun at once."""

    stage: Stage
    begun: dict[Scene, Future[Seen]]

    def __getitem__(self, scene: Scene) -> Seen:
        return self.begun[scene].result(60)


@pytest.fixture(scope="module", autouse=True)
def play(make_server: MakeServer) -> Iterator[Play]:
    collected: list[bytes] = []
    with _collector(collected) as port:
        stage = Stage(server=make_server(idle_timeout=2.0, host_ports=port), collector=port, collected=collected)
        require(stage.server, PYTHON)
        begun = {scene: stage.server.submit(partial(scene, stage)) for scene in SCENES}
        yield Play(stage, begun)
        for future in begun.values():
            future.exception(60)


# -- tests that measure, one after the other --------------------


@contextmanager
def _working(server: TorporServer, seconds: float, **configuration: Any) -> Iterator[Function]:
    """A function, invoked once before, with an extension that works for some seconds on each invocation."""
    variables = {"Variables": {"SECONDS": str(seconds)}}
    with extended(server, HELLO, {"watch": WORKS}, Environment=variables, **configuration) as function:
        yield function


def _plain_invoke(function: Function, event: str = "{}") -> bytes:
    """Without the log, whose end the caller would wait for."""
    answer = function.server.client.invoke(FunctionName=function.name, Payload=event)
    payload: bytes = answer["Payload"].read()
    return payload


def _report(lines: list[str]) -> str:
    return next(line for line in lines if line.startswith("REPORT "))


def _duration(report: str) -> float:
    found = re.search(r"Duration: ([0-9.]+) ms", report)
    assert found is not None, report
    return float(found[1])


def _init_duration(report: str) -> float:
    found = re.search(r"Init Duration: ([0-9.]+) ms", report)
    assert found is not None, report
    return float(found[1])


@pytest.mark.fact("L-012", "L-039", "L-040")
def test_environment_is_busy_until_the_extension_asks_for_more(server: TorporServer) -> None:
    with _working(server, 2.0) as function:
        _plain_invoke(function)
        answered = time.time()
        assert [(entry["phase"], entry["idle_s"]) for entry in function.environments()] == [("serving", 0.0)]
        assert not any(line.startswith("REPORT") for line in function.lines())

        _plain_invoke(function)
        second = time.time()
        first_stream = function.logs()[0].stream
        eventually(lambda: all(entry["phase"] == "frozen" for entry in function.environments()), what="both frozen")
        mine = [event for event in function.logs() if event.stream == first_stream]
        asked = next(float(event.message.split()[-1]) for event in mine if event.message.startswith("watch next"))
        kinds = [event.message.split()[0] for event in mine if event.message.startswith(("START", "REPORT"))]
        report = next(event for event in mine if event.message.startswith("REPORT"))

    assert second < asked
    assert asked > answered + 1.0
    assert kinds == ["START", "REPORT"]
    assert asked - 0.01 <= report.time <= asked + 0.3


@pytest.mark.fact("L-038")
def test_duration_is_that_of_runtime_and_extensions_with_overlap_counted_once(server: TorporServer) -> None:
    with _working(server, 0.5) as function:
        assert 500 <= _duration(function.invoke({"sleep": 0.1}).report) < 1000


@pytest.mark.fact("L-037")
def test_deadline_is_the_same_for_handler_and_extension(server: TorporServer) -> None:
    with _working(server, 0.0, Timeout=360) as function:
        reply = function.invoke()
        events = function.logs()
    start = next(event.time for event in events if event.message.startswith("START")) * 1000
    told = next(float(event.message.split()[3]) for event in events if event.message.startswith("watch INVOKE"))
    assert told == pytest.approx(start + 360_000, abs=50)
    assert reply.payload["deadline"] == pytest.approx(start + 360_000, abs=50)


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.fact("L-037")
def test_function_and_extension_share_six_minutes(server: TorporServer) -> None:
    with _working(server, 400.0, Timeout=360) as function:
        waiting = server.submit(lambda: function.invoke({"sleep": 200}))
        eventually(lambda: any(line.startswith("REPORT") for line in function.lines()), within=400.0, what="the end")
        waiting.exception()
        report = _report(function.lines())
    assert "Status: timeout" in report and 360_000 <= _duration(report) < 361_000


@pytest.mark.fact("L-013", "L-014")
def test_nothing_is_frozen_while_an_extension_works_and_all_is_afterwards(server: TorporServer) -> None:
    source = """
        register("INVOKE")
        def tick():
            while True:
                with open("/tmp/ticks", "a") as ticks:
                    ticks.write(f"{time.time()}\\n")
                time.sleep(0.05)
        threading.Thread(target=tick, daemon=True).start()
        while True:
            next_event()
            time.sleep(1.0)
    """
    package = python("""
        def handler(event, context):
            return open("/tmp/ticks").read().split()
    """)
    with extended(server, package, {"watch": source}) as function:
        _plain_invoke(function)
        answered = time.time()
        frozen = function.wait_until_frozen()
        time.sleep(3.0)
        again = time.time()
        ticks = [float(text) for text in function.invoke().payload]
    assert len([tick for tick in ticks if answered < tick < answered + 1.0]) >= 10
    assert [tick for tick in ticks if frozen + 0.02 < tick < again] == []


@pytest.mark.fact("L-043")
def test_crash_of_an_extension_fails_the_invocation_and_everything_starts_anew(server: TorporServer) -> None:
    source = """
        register("INVOKE", "SHUTDOWN")
        say("registered", identifier)
        while (event := next_event())["eventType"] == "INVOKE":
            if os.path.exists("/tmp/crashed"):
                continue
            open("/tmp/crashed", "w").close()
            sys.exit(1)
    """
    with extended(server, HELLO, {"watch": source}) as function:
        failed, good = function.invoke({"sleep": 5}), function.invoke()
        seen = _seen(function)
    assert failed.error == "Unhandled" and failed.payload["errorType"] == "Extension.Crash"
    assert re.search(r"Status: error\s+Error Type: Extension\.Crash\s*$", failed.report)
    assert not good.error and failed.elapsed < 4
    identifiers = [words[0] for words in seen.words("watch registered")]
    assert len(set(identifiers)) == 2 and len(seen.words("module")) == 2


@pytest.mark.fact("L-015", "L-016")
def test_init_starts_extensions_then_the_runtime_then_the_functions_own_code(server: TorporServer) -> None:
    files = {f"extensions/{name}": extension(WATCH) for name in ("one", "two", "three")}
    files["wrapper"] = '#!/bin/bash\necho runtime boots\nexec "$@"\n'
    variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"}}
    with layer(server, files) as arn, server.deployed(HELLO, Layers=[arn], Environment=variables) as function:
        function.invoke()
        lines = [line.split()[:2] for line in function.lines()]
    registered = [index for index, words in enumerate(lines) if words[1:] == ["registered"]]
    assert len(registered) == 3
    boots = lines.index(["runtime", "boots"])
    module = next(index for index, words in enumerate(lines) if words[0] == "module")
    assert max(registered) < boots < module < next(index for index, words in enumerate(lines) if words[0] == "START")


def test_extension_that_cannot_be_executed_is_a_launch_error(server: TorporServer) -> None:
    files = {"extensions/watch": "#!/no/such/interpreter\n"}
    with layer(server, files) as arn, server.deployed(HELLO, Layers=[arn]) as function:
        reply = function.invoke()
        report = next(line for line in function.lines() if line.startswith("INIT_REPORT"))
    assert report.rstrip().endswith("Error Type: Extension.LaunchError")
    assert reply.payload["errorType"] == "Extension.LaunchError"


def test_of_overlapping_layers_the_later_one_wins(server: TorporServer) -> None:
    package = python("""
        def handler(event, context):
            return [open("/opt/" + name).read() for name in ("both", "first", "second")]
    """)
    first = {"extensions/watch": extension('say("first")'), "both": "first", "first": "1"}
    second = {"extensions/watch": extension(WATCH), "both": "second", "second": "2"}
    with (
        layer(server, first) as one,
        layer(server, second) as two,
        server.deployed(package, Layers=[one, two]) as function,
    ):
        assert function.invoke().payload == ["second", "1", "2"]
        assert [line.split()[1] for line in function.lines() if line.startswith("watch")] == ["registered", "INVOKE"]


SHARES = """
    import socketserver
    register("INVOKE")
    open("/tmp/mine", "w").write(os.environ["STAGE"])
    class Greets(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(NAME.encode())
    if NAME == "one":
        threading.Thread(target=socketserver.TCPServer(("127.0.0.1", 4567), Greets).serve_forever, daemon=True).start()
    say("keys", os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SESSION_TOKEN"])
    say("stage", os.environ["STAGE"])
    say("own", *[name for name in os.environ if name.startswith("_") or name == "AWS_EXECUTION_ENV"])
    while True:
        next_event()
        programs = {}
        for pid in os.listdir("/proc"):
            if pid.isdecimal():
                programs[pid] = open(f"/proc/{pid}/cmdline").read().split("\\0")
        say("sees", os.getpid(), json.dumps(programs))
"""


@pytest.mark.fact("L-007", "L-008", "L-009", "L-010")
def test_runtime_and_extensions_are_processes_of_their_own_that_share_what_the_environment_has(
    server: TorporServer,
) -> None:
    package = python("""
        import socket
        def handler(event, context):
            with socket.create_connection(("127.0.0.1", 4567)) as one:
                greeting = one.recv(10).decode()
            keys = [os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SESSION_TOKEN"]]
            return {"keys": keys, "stage": os.environ["STAGE"], "file": open("/tmp/mine").read(),
                    "greeting": greeting, "pid": os.getpid()}
    """)
    variables = {"Variables": {"STAGE": "blue"}}
    with extended(server, package, {"one": SHARES, "two": SHARES}, Environment=variables) as function:
        seen = _seen(function, function.invoke())
        seen = _seen(function, *seen.replies)
    told = seen.replies[0].payload
    for name in ("one", "two"):
        assert seen.words(f"{name} keys") == [told["keys"]]
        assert seen.words(f"{name} stage") == [["blue"]]
        assert seen.words(f"{name} own") == [[]]
    assert (told["stage"], told["file"], told["greeting"]) == ("blue", "blue", "one")
    pids = {int(seen.words(f"{name} sees")[0][0]) for name in ("one", "two")} | {told["pid"]}
    assert len(pids) == 3
    for name in ("one", "two"):
        programs = " ".join(seen.words(f"{name} sees")[0][1:])
        listed = {int(pid) for pid in re.findall(r'"(\d+)": \[', programs)}
        assert pids <= listed and "/opt/extensions/one" in programs and "/opt/extensions/two" in programs
        assert len(listed) <= 4, programs


@pytest.mark.fact("L-009")
def test_memory_is_shared_by_function_and_extensions(server: TorporServer) -> None:
    source = """
        held = b"x" * 80_000_000
        register("INVOKE")
        while True:
            next_event()
    """
    package = python("""
        def handler(event, context):
            held = b"x" * event["bytes"]
            time.sleep(0.5)  # where no control group keeps the limit, it is looked at now and then
            return len(held)
    """)
    with extended(server, package, {"watch": source}, MemorySize=128) as function:
        small, large = function.invoke({"bytes": 1_000_000}), function.invoke({"bytes": 80_000_000})
    assert small.payload == 1_000_000
    assert large.payload["errorType"] in ("Runtime.ExitError", "Extension.Crash")
    assert "Max Memory Used: 128 MB" in large.report


def test_server_that_stops_lets_an_extension_finish_its_work(tmp_path: Path) -> None:
    server = TorporServer(tmp_path)
    # Neither function nor layer can be deleted once the server is gone.
    with suppress(EndpointConnectionError), _working(server, 1.0) as function:
        _plain_invoke(function)
        server.stop()
    (log,) = (server.data / "logs").rglob("events.jsonl")
    assert "watch next" in log.read_text() and "Status" not in log.read_text()
    assert "REPORT" in log.read_text()


# -- what the scenes have shown --------------------


@pytest.mark.fact("L-019")
def test_init_ends_only_when_the_extension_has_asked_for_its_first_event(play: Play) -> None:
    reply = play[extension_asks_late_for_its_first_event].replies[0]
    assert reply.elapsed >= 3 and 3000 <= _init_duration(reply.report) < 4500


@pytest.mark.fact("L-032")
def test_extension_that_exits_in_init_is_told_in_the_init_report(play: Play) -> None:
    seen = play[extension_exits_before_its_first_event]
    pattern = r"INIT_REPORT Init Duration: \d+\.\d\d ms\s+Phase: init\s+Status: error\s+Error Type: Extension\.Crash\s*"
    assert any(re.fullmatch(pattern, line) for line in seen.lines)
    assert seen.replies[0].payload["errorType"] == "Extension.Crash"


@pytest.mark.fact("L-021")
def test_limit_of_init_is_for_all_its_tasks_together(play: Play) -> None:
    seen = play[init_takes_twelve_seconds_in_two_parts]
    report = next(line for line in seen.lines if line.startswith("INIT_REPORT"))
    assert "Status: timeout" in report and 10_000 <= _init_duration(report) <= 10_500


@pytest.mark.fact("L-036", "L-045")
def test_timeout_is_for_function_and_extensions_together(play: Play) -> None:
    seen = play[extension_outlasts_the_timeout]
    reply = seen.replies[0]
    assert not reply.error and reply.payload["boot"]
    assert re.search(r"Status: timeout\s*$", reply.report)
    assert 3000 <= _duration(reply.report) < 3300
    assert seen.words("watch SHUTDOWN") == [["timeout"]]


@pytest.mark.fact("L-005", "L-011", "L-035", "L-045", "L-048", "L-068")
def test_each_extension_gets_the_invocation_and_then_the_shutdown(play: Play) -> None:
    seen = play[two_watchers_idle_out]
    start = next(line for line in seen.lines if line.startswith("START"))
    for name in ("one", "two"):
        assert [words[0] for words in seen.words(f"{name} INVOKE")] == [start.split()[2]]
        reason, left, *files = seen.words(f"{name} SHUTDOWN")[0]
        assert reason == "spindown" and 0 < float(left) <= 2000 and files == ["kept"]
        kinds = [line.split()[1] for line in seen.lines if line.startswith(f"{name} ")]
        assert kinds == ["INVOKE", "SHUTDOWN"]


@pytest.mark.fact("L-069")
def test_extension_uses_the_shutdown_for_a_last_delivery(play: Play) -> None:
    seen = play[last_words]
    assert seen.lines[-1] == "watch sent"
    assert play.stage.collected == [b"first half, ", b"second half"]


@pytest.mark.fact("L-070")
def test_shutdown_takes_two_seconds_at_most(play: Play) -> None:
    seen = play[extension_never_returns_from_shutdown]
    told, left = map(float, seen.words("watch SHUTDOWN")[0])
    last = float(seen.words("watch tick")[-1][0])
    assert 1000 < left <= 2000
    assert 1.8 <= last - told <= 2.3
    end = seen.phases[-1]
    assert end["phase"] == "shutdown" and 2.0 <= end["duration"] <= 2.3


@pytest.mark.fact("L-071")
def test_processes_that_do_not_react_are_killed(play: Play) -> None:
    seen = play[nobody_reacts_to_the_shutdown]
    end = seen.phases[-1]
    assert end["exits"] == {"runtime": "signal 9", "watch": "signal 9"}
    assert 2.0 <= end["duration"] <= 2.3
    told = float(seen.words("watch SHUTDOWN")[0][1])
    assert told <= 1500, "the runtime had its share of the time first"


@pytest.mark.fact("L-044", "L-045")
def test_reset_ends_the_runtime_before_it_tells_each_extension(play: Play) -> None:
    seen = play[good_bad_good_idle]
    for name in ("watch", "also"):
        reasons = [words[0] for words in seen.words(f"{name} SHUTDOWN")]
        assert reasons == ["failure", "spindown"]
        assert [words[1:] for words in seen.words(f"{name} SHUTDOWN")] == [["runtime", "gone"]] * 2


@pytest.mark.fact("L-046")
def test_environment_is_used_again_after_a_reset_and_initialises_inside_the_invocation(play: Play) -> None:
    seen = play[good_bad_good_idle]
    good, bad, again = seen.replies
    assert bad.payload["errorType"] == "Runtime.ExitError" and good.payload != again.payload
    assert len({event.stream for event in seen.events}) == 1
    assert len({words[0] for words in seen.words("watch registered")}) == 2
    assert len([line for line in seen.lines if line == "module"]) == 2
    assert _duration(again.report) >= 200 and "Init Duration" not in again.report


@pytest.mark.fact("L-049")
def test_story_of_an_environment_has_five_phases(play: Play) -> None:
    listed = [(entry["phase"], entry["status"]) for entry in play[good_bad_good_idle].phases]
    assert listed[:2] == [("fetch", "success"), ("start", "success")], "what comes before any process"
    assert listed[2:] == [
        ("init", "success"),
        ("invoke", "success"),
        ("invoke", "error"),
        ("reinit", "success"),
        ("invoke", "success"),
        ("shutdown", "success"),
    ], "an invocation with Init again is listed as both"
