"""Function Compute instances that break at each step of their life, and calls that should not be: all is told."""

import http.client
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.journeys.conftest import MakeServer
from tests.support.fc import SERVED, ComputeFunction, deployed, fc_warnings, request
from tests.support.raw_service import SOURCE, Caller
from tests.support.server import TorporServer, eventually

pytestmark = [fc_warnings]
FILES = {"server.py": SOURCE.replace('os.environ["PORT"]', 'os.environ["FC_SERVER_PORT"]')}
OK = "say(conn, b'ok')"
MIB = 1 << 20
Deploy = Callable[..., ComputeFunction]


@pytest.fixture
def deploy(server: TorporServer) -> Iterator[Deploy]:
    """Deploys servers that do what they are asked; variables tell what they do upon the platform's own calls."""
    with ExitStack() as stack:

        def deploy(
            *, on: TorporServer | None = None, hooks: dict[str, int] | None = None, source: str = "", **given: Any
        ) -> ComputeFunction:
            variables = {name: value for name, value in given.items() if name.startswith("ON_")}
            given = {name: value for name, value in given.items() if name not in variables}
            cycle = {name: {"handler": "server.hook", "timeout": limit} for name, limit in (hooks or {}).items()}
            files = {"server.py": source} if source else FILES
            return stack.enter_context(
                deployed(
                    on or server,
                    files,
                    **(SERVED | {"environmentVariables": variables, "instanceLifecycleConfig": cycle or None} | given),
                )
            )

        yield deploy


def code(function: ComputeFunction, text: str = OK, **headers: str) -> Any:
    return function.post(text.encode(), headers)


INITS = {
    "400": "conn.sendall(b'HTTP/1.1 400 Bad Request\\r\\nContent-Length: 3\\r\\n\\r\\nbad')",
    "404 of its own": "conn.sendall(b'HTTP/1.1 200 OK\\r\\nx-fc-status: 404\\r\\nContent-Length: 3\\r\\n\\r\\nbad')",
    "500": "conn.sendall(b'HTTP/1.1 500 Oops\\r\\nContent-Length: 3\\r\\n\\r\\nbad')",
    "no answer": "conn.close()",
    "garbage": "conn.sendall(b'GARBAGE')",
    "too slow": "time.sleep(30)",
    "exit": "os._exit(7)",
    "reset": "reset(conn)",
}


@pytest.mark.parametrize("case", INITS)
def test_an_initializer_that_fails_is_told_to_the_caller_and_the_next_call_begins_anew(
    deploy: Deploy, case: str
) -> None:
    function = deploy(hooks={"initializer": 1}, ON_INITIALIZE=INITS[case])
    for _ in range(2):
        began = time.monotonic()
        result = code(function)
        assert time.monotonic() - began < 8
        told = result.error or json.loads(result.body).get("Code", "")
        assert told, (result.status, result.body)
        assert result.status in (200, 412, 502), result.body
        assert result.body
    eventually(lambda: not function.environments(), what="the end of the failed instances")
    function.update(environmentVariables={"ON_INITIALIZE": OK})
    assert code(function).body == b"ok"


@pytest.mark.parametrize("stop", ["time.sleep(30)", "os._exit(3)", "conn.sendall(b'GARBAGE')", "reset(conn)"])
def test_a_stop_hook_that_fails_ends_with_its_instance(deploy: Deploy, stop: str) -> None:
    function = deploy(hooks={"preStop": 1}, ON_PRE_STOP=stop)
    assert code(function).body == b"ok"

    function.update(description="new")

    eventually(lambda: not function.environments(), within=10, what="the instance ending")
    assert code(function).body == b"ok"


@pytest.mark.parametrize("freeze", ["time.sleep(30)", "os._exit(3)", "conn.sendall(b'GARBAGE')", "reset(conn)"])
def test_a_freeze_hook_that_fails_does_not_keep_the_next_call_waiting_for_ever(deploy: Deploy, freeze: str) -> None:
    function = deploy(hooks={"preFreeze": 1}, ON_PRE_FREEZE=freeze)
    for _ in range(3):
        began = time.monotonic()
        assert code(function).body == b"ok"
        assert time.monotonic() - began < 5
        time.sleep(0.1)


def test_a_server_that_exits_fails_all_its_calls_and_the_next_one_works(deploy: Deploy) -> None:
    function = deploy(instanceConcurrency=10)
    assert code(function).body == b"ok"
    waiting = [function.start(b"time.sleep(30); say(conn, b'')") for _ in range(8)]
    time.sleep(0.5)

    last = code(function, "os._exit(5)")
    results = [one.result() for one in waiting]

    assert all(result.error or result.status != 200 for result in [last, *results])
    assert all(b"exit" in result.body.lower() for result in [last, *results]), last.body
    assert code(function).body == b"ok"
    assert len(function.environments()) == 1


LIKE_RELAY = {
    "garbage": b"GARBAGE\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nokok",
    "status of four digits": b"HTTP/1.1 1000 Late\r\nContent-Length: 2\r\n\r\nok",
    "head over the limit": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "switch unasked": b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok",
    "interim answers without end": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 5_000,
}


@pytest.mark.parametrize("case", LIKE_RELAY)
def test_an_answer_that_is_none_is_told_as_the_functions_error(deploy: Deploy, case: str) -> None:
    function = deploy()
    result = code(function, f"conn.sendall({LIKE_RELAY[case]!r}); conn.shutdown(socket.SHUT_WR); conn.recv(1)")

    assert result.error or result.status in (412, 502), (result.status, result.body)
    assert b"ok" not in result.body.replace(b"token", b"")
    assert code(function).body == b"ok"


def test_a_caller_that_goes_away_has_its_instance_replaced_where_it_serves_one_alone(deploy: Deploy) -> None:
    alone, several = deploy(), deploy(instanceConcurrency=5)
    for function, same in ((alone, False), (several, True)):
        assert code(function).body == b"ok"
        first = function.environments()[0]["id"]
        leave(function, "time.sleep(5)")
        assert code(function).body == b"ok"
        eventually(lambda found=function: len(found.environments()) == 1, what="one instance")
        assert (function.environments()[0]["id"] == first) is same


def leave(function: ComputeFunction, text: str) -> None:
    """Call it and go away without a good-bye."""
    place = urlsplit(function.server.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as peer:
        head = f"POST {function.path}/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
        peer.sendall((head.replace("Host: x", "Host: localhost") + text).encode())
        time.sleep(0.4)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


NOTE = "SEEN.append(b'{0}'); print('noted {0}', flush=True); time.sleep(0.02); say(conn, b'')"


def test_asynchronous_calls_above_the_cap_all_run_in_their_order(make_server: MakeServer, deploy: Deploy) -> None:
    function = deploy(on=make_server(fc_instances=1))
    for number in range(60):
        assert function.send(NOTE.format(number).encode()).status == 202

    noted = eventually(lambda: len(found := function.printed("noted ")) == 60 and found, within=20, what="60 runs")

    assert noted == [f"noted {number}" for number in range(60)]
    assert len(function.environments()) == 1


def test_asynchronous_calls_of_a_deleted_function_end(make_server: MakeServer, deploy: Deploy) -> None:
    server = make_server(fc_instances=1)
    with deployed(server, FILES, **SERVED) as doomed:
        for number in range(10):
            assert doomed.send(f"time.sleep(0.2); say(conn, b'{number}')".encode()).status == 202
    other = deploy(on=server)

    def served() -> bool:
        return bool(code(other).body == b"ok")

    eventually(served, within=15, what="the cap being free again")
    eventually(lambda: not server.environments(doomed.record), what="the end of the deleted function")


def test_a_task_id_is_taken_once(deploy: Deploy) -> None:
    function = deploy()
    headers = {"x-fc-invocation-type": "Async", "x-fc-async-task-id": "only-once"}

    assert function.post(OK.encode(), headers).status == 202
    again = function.post(OK.encode(), headers)

    assert again.status == 409
    assert "only-once" in again.body.decode()


@pytest.mark.parametrize(
    ("size", "mode", "status"),
    [(32 * MIB + 1, "Sync", 400), (128 * 1024 + 1, "Async", 400), (128 * 1024, "Async", 202), (100 * MIB, "Sync", 413)],
)
def test_payloads_over_the_limits_are_refused(deploy: Deploy, size: int, mode: str, status: int) -> None:
    function = deploy()
    try:
        result = function.post(OK.encode() + b"#" * (size - len(OK)), {"x-fc-invocation-type": mode})
    except OSError:
        assert size == 100 * MIB  # refused while it was still being sent
        return
    assert result.status in (status, 400, 413) if status != 202 else result.status == 202
    if status != 202:
        assert "ErrorMessage" in result.body.decode() or "message" in result.body.decode()


WRONG = {
    "broken JSON": ("POST", "/2023-03-30/functions", b'{"functionName":', 400),
    "no object": ("POST", "/2023-03-30/functions", b"[]", 400),
    "nothing": ("POST", "/2023-03-30/functions", b"", 400),
    "not UTF-8": ("POST", "/2023-03-30/functions", b"\xff\xfe", 400),
    "deeply nested": ("POST", "/2023-03-30/functions", b"[" * 200_000, 400),
    "wrong types": ("POST", "/2023-03-30/functions", b'{"functionName": 1, "runtime": [], "handler": {}}', 400),
    "path of another generation": ("GET", "/2023-03-30/services", b"", 400),
    "functions without a service": ("GET", "/2016-08-15/functions", b"", 400),
    "wrong method": ("PATCH", "/2023-03-30/functions/x", b"", 400),
    "unknown function": ("POST", "/2023-03-30/functions/nobody/invocations", b"", 404),
    "unknown service": ("POST", "/2016-08-15/services/none/functions/nobody/invocations", b"", 404),
    "no trigger": ("GET", "/2023-03-30/proxy/nobody/x", b"", 404),
    "name out of a path": ("GET", "/2023-03-30/functions/..%2F..%2Fetc", b"", 404),
}


@pytest.mark.parametrize("case", WRONG)
def test_calls_of_the_api_that_cannot_be_are_told_in_its_form(server: TorporServer, case: str) -> None:
    method, path, body, status = WRONG[case]

    result = request(server, method, path, body, {"Content-Type": "application/json"})

    assert result.status == status, result.body
    told = json.loads(result.body)
    assert told["ErrorCode"] == told["Code"]
    assert told["ErrorMessage"]
    assert result.request_id


@pytest.mark.parametrize(
    "headers",
    [{"x-fc-invocation-type": "Later"}, {"x-fc-log-type": "All"}, {"x-fc-async-task-id": "1 2"},
     {"x-fc-async-delay": "-1"}, {"x-fc-async-delay": "1e99"}, {"x-fc-async-delay": "nan"}],
)  # fmt: skip
def test_control_headers_that_cannot_be_are_refused(deploy: Deploy, headers: dict[str, str]) -> None:
    result = deploy().post(OK.encode(), {"x-fc-invocation-type": "Async", **headers})

    assert result.status == 400, (result.status, result.body)


def test_a_head_of_ten_megabytes_is_refused(server: TorporServer) -> None:
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as peer:
        try:
            peer.sendall(
                b"GET /2023-03-30/functions HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 10 * MIB + b"\r\n\r\n"
            )
        except OSError:
            return
        assert Caller(peer).reply().status == 431


def test_requests_over_a_trigger_lose_what_is_meant_for_one_connection(deploy: Deploy) -> None:
    function = deploy(instanceConcurrency=5)
    with function.triggered("http", authType="anonymous", methods=["GET", "POST"]) as url:
        sent = {"Connection": "X-Secret, Host", "X-Secret": "1", "TE": "trailers", "X-Kept": "2",
                "x-fc-request-id": "forged", "Proxy-Authorization": "x"}  # fmt: skip
        trigger_get(function, url, "/plain", sent)
        head = json.loads(trigger_get(function, url, "/seen", {})[1])[-1].lower()

    assert "x-kept: 2" in head
    assert "host: " in head
    assert [
        word for word in ("x-secret", "te: ", "forged", "proxy-") if f"\r\n{word}" in head or word == "forged" in head
    ] == []


def trigger_get(function: ComputeFunction, url: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(function.server.url).netloc, timeout=20)
    connection.request("GET", path, headers={"Host": urlsplit(url).netloc, **headers})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_health_that_flaps_holds_calls_back_only_while_it_is_bad(deploy: Deploy) -> None:
    check = {"httpGetUrl": "/health", "periodSeconds": 1, "failureThreshold": 1, "successThreshold": 1}
    sick = "os.environ.get('TMPDIR', '/tmp') + '/sick'"
    flapping = f"say(conn, b'') if os.path.exists({sick}) is False else reset(conn)"
    function = deploy(
        instanceConcurrency=5,
        customRuntimeConfig=SERVED["customRuntimeConfig"] | {"healthCheckConfig": check},
        ON_HEALTH=flapping,
    )
    assert code(function).body == b"ok"
    code(function, f"open({sick}, 'w'); say(conn, b'')")
    time.sleep(2.5)
    other = code(function)
    assert other.body == b"ok" or other.status in (412, 429, 503), (other.status, other.body)
    eventually(lambda: code(function).body == b"ok", within=10, what="calls being served again")
