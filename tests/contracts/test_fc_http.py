"""Functions called by HTTP: triggers, their local domains, custom domains, CORS, and events of built-in runtimes."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from alibabacloud_fc20230330 import models as v3
from tests.contracts.fc_support import Server, encoded, fc_warnings, new_classic, new_v3, serving

from torpor.api.fc import FcSettings
from torpor.contracts.function_compute.server_wire import FunctionComputeServerWire
from torpor.model.failure import Failure, FailureKind
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus

pytestmark = fc_warnings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "code") as running:
        running.dispatcher.serve = serve
        yield running


def serve(invocation: Invocation) -> None:
    """A server inside that tells what it was sent."""
    http = invocation.http
    assert http is not None
    http.relay.head(201, [("X-Own", "yes"), ("Content-Type", "text/html")], None)
    http.relay.data(f"{http.method} {http.target} ".encode())
    http.relay.data(invocation.payload)
    http.relay.end()


def trigger(server: Server, function: str, config: dict[str, Any], qualifier: str = "LATEST") -> Any:
    given = {"authType": "anonymous", "methods": ["GET", "POST", "OPTIONS"], **config}
    body = v3.CreateTriggerInput(
        trigger_name=f"web-{qualifier}",
        trigger_type="http",
        trigger_config=json.dumps(given),
        qualifier=qualifier,
    )
    return server.v3().create_trigger(function, v3.CreateTriggerRequest(body=body)).body


def host_of(made: Any) -> str:
    return urlsplit(made.http_trigger.url_internet).netloc


@pytest.mark.fact("F-001", "C-004")
def test_a_request_to_the_triggers_domain_is_passed_on_as_it_came(server: Server) -> None:
    new_v3(server.v3(), "hello")
    host = host_of(trigger(server, "hello", {}))

    status, fields, body = server.request("POST", "/a%20b/c?x=1&x=2", b"data", {"X-Fc-Evil": "1", "X-A": "b"}, host)
    sent = server.dispatcher.seen[0][1].http

    assert host.endswith(f".fcapp.localhost:{server.port}")
    assert (status, body) == (201, b"POST /a%20b/c?x=1&x=2 data")
    assert fields["x-own"] == "yes"
    assert fields["x-fc-request-id"] == server.dispatcher.seen[0][1].id
    assert fields["content-disposition"] == "attachment"
    assert sent is not None
    names = [name.lower() for name, _ in sent.fields]
    assert "x-a" in names
    assert "x-fc-evil" not in names
    assert "connection" not in names


def test_the_path_form_of_both_generations_reaches_the_function_below_its_name(server: Server, tmp_path: Path) -> None:
    client = server.classic()
    new_classic(client, "shop", "hello", tmp_path)
    config = {"authType": "anonymous", "methods": ["GET"]}
    made = client.create_trigger("shop", "hello", "web", "http", config, None, None)
    new_v3(server.v3(), "hello")
    trigger(server, "hello", {})

    assert made.data["urlInternet"] == f"{server.url}/2016-08-15/proxy/shop/hello/"
    assert server.request("GET", "/2016-08-15/proxy/shop/hello/x/y?q=1")[2] == b"GET /x/y?q=1 "
    assert server.request("GET", "/2016-08-15/proxy/shop/hello")[2] == b"GET / "
    assert server.request("GET", "/2023-03-30/proxy/hello/x/y?q=1")[2] == b"GET /x/y?q=1 "
    wire = FunctionComputeServerWire()
    version, invocation = server.dispatcher.seen[0]
    told = dict(wire.forwarded(version, invocation, "e"))
    assert told["x-fc-base-path"] == "/2016-08-15/proxy/shop/hello/"
    assert told["x-fc-control-path"] == "/http-invoke"
    assert told["x-fc-client-ip"] == "127.0.0.1"


def test_methods_that_the_trigger_does_not_name_and_disabled_addresses_are_refused(server: Server) -> None:
    new_v3(server.v3(), "hello")
    host = host_of(trigger(server, "hello", {}))
    new_v3(server.v3(), "closed")
    closed = host_of(trigger(server, "closed", {"disableURLInternet": True}))

    assert server.request("DELETE", "/", host=host)[0] == 403
    status, _, body = server.request("GET", "/", host=closed)
    assert status == 403
    assert json.loads(body)["Message"] == "access denied due to function internet URL is disable"


def test_a_version_has_one_http_trigger(server: Server) -> None:
    new_v3(server.v3(), "hello")
    trigger(server, "hello", {})
    body = v3.CreateTriggerInput(trigger_name="second", trigger_type="http", trigger_config="{}")

    with pytest.raises(Exception) as refused:
        server.v3().create_trigger("hello", v3.CreateTriggerRequest(body=body))

    assert refused.value.code == "TriggerAlreadyExists"


def test_requests_over_the_limits_are_refused(server: Server) -> None:
    new_v3(server.v3(), "hello")
    host = host_of(trigger(server, "hello", {}))

    long_path = server.request("GET", "/" + "x" * 4096, host=host)
    large_fields = server.request("GET", "/", headers={"X-A": "x" * 8192}, host=host)
    large_event = server.request("POST", "/", b"x" * 131_073, {"X-Fc-Invocation-Type": "Async"}, host)

    assert [answer[0] for answer in (long_path, large_fields, large_event)] == [400, 400, 400]
    assert server.dispatcher.seen == []


def test_an_asynchronous_request_is_accepted_without_an_answer(server: Server) -> None:
    new_v3(server.v3(), "hello")
    host = host_of(trigger(server, "hello", {}))

    status, _, body = server.request("POST", "/a", b"x", {"X-Fc-Invocation-Type": "Async"}, host)

    assert (status, body) == (202, b"")
    assert server.invocations(1)[0].patient


def test_a_server_that_does_not_start_is_told_by_http_as_a_bad_gateway(server: Server) -> None:
    new_v3(server.v3(), "hello")
    host = host_of(trigger(server, "hello", {}))
    server.dispatcher.serve = None
    failure = Failure(kind=FailureKind.TIMEOUT, limit=120.0, starting=True)
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.TIMEOUT, payload=b"", failure=failure)

    status, _, body = server.request("GET", "/", host=host)

    assert status == 502
    assert json.loads(body)["Code"] == "FunctionNotStarted"


def test_an_answer_that_breaks_off_never_looks_complete(server: Server) -> None:
    new_v3(server.v3(), "hello")
    host = host_of(trigger(server, "hello", {}))

    def half(invocation: Invocation) -> None:
        assert invocation.http is not None
        invocation.http.relay.head(200, [], 100)
        invocation.http.relay.data(b"half")

    server.dispatcher.serve = half
    failure = Failure(kind=FailureKind.EXIT, code=1)
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.ERROR, payload=b"", failure=failure)

    with pytest.raises(OSError):
        _read(server, host)


def _read(server: Server, host: str) -> None:
    import http.client

    try:
        server.request("GET", "/", host=host)
    except http.client.IncompleteRead as error:
        raise OSError from error


CORS = {
    "corsConfig": {"allowOrigins": ["http://a.test"], "allowMethods": ["GET"], "allowHeaders": ["x-a"], "maxAge": 5}
}


def test_the_gateway_answers_questions_of_browsers_that_pass_and_forwards_the_others(server: Server) -> None:
    new_v3(server.v3(), "hello")
    host = host_of(trigger(server, "hello", CORS))
    question = {"Origin": "http://a.test", "Access-Control-Request-Method": "GET"}

    passed = server.request("OPTIONS", "/", headers={**question, "Access-Control-Request-Headers": "X-A"}, host=host)
    other = server.request("OPTIONS", "/", headers={**question, "Origin": "http://b.test"}, host=host)
    answered = server.request("GET", "/", headers={"Origin": "http://a.test"}, host=host)

    assert passed[0] == 204
    assert passed[1]["access-control-allow-origin"] == "http://a.test"
    assert passed[1]["access-control-allow-headers"] == "X-A"
    assert passed[1]["access-control-max-age"] == "5"
    assert other[0] == 201
    assert "access-control-allow-origin" not in other[1]
    assert answered[1]["access-control-allow-origin"] == "http://a.test"


def builtin(server: Server, result: Outcome) -> str:
    new_v3(server.v3(), "event", runtime="python3.12", custom_runtime_config=None,
           code=v3.InputCodeLocation(zip_file=encoded({"index.py": ""})))  # fmt: skip
    server.dispatcher.serve, server.dispatcher.outcome = None, result
    return host_of(trigger(server, "event", {}))


def test_a_builtin_runtime_gets_an_event_that_describes_the_request(server: Server) -> None:
    host = builtin(server, Outcome(status=OutcomeStatus.SUCCESS, payload=b'"plain"'))

    status, fields, body = server.request("POST", "/a%20b?k=1&k=2", b"\xff", {"x-custom-name": "v"}, host)
    text = server.request("POST", "/", b"{}", {"Content-Type": "application/json; charset=utf-8"}, host)
    event, second = (json.loads(invocation.payload) for _, invocation in server.dispatcher.seen)

    assert (status, fields["content-type"], body) == (200, "application/json", b'"plain"')
    assert text[0] == 200
    assert (event["rawPath"], event["requestContext"]["http"]["path"]) == ("/a%20b", "/a b")
    assert event["queryParameters"] == {"k": "1,2"}
    assert event["headers"]["X-Custom-Name"] == "v"
    assert (event["body"], event["isBase64Encoded"]) == (base64.b64encode(b"\xff").decode(), True)
    assert (second["body"], second["isBase64Encoded"]) == ("{}", False)
    assert isinstance(event["requestContext"]["timeEpoch"], str)
    assert event["requestContext"]["domainPrefix"] == host.partition(".")[0]


@pytest.mark.parametrize(
    ("result", "status", "body"),
    [
        ({"statusCode": 404, "headers": {"X-A": "b", "x-fc-a": "c"}, "body": "gone"}, 404, b"gone"),
        ({"statusCode": 200, "body": {"a": 1}}, 200, b'{"a":1}'),
        ({"statusCode": 200, "isBase64Encoded": True, "body": "AAE="}, 200, b"\0\1"),
        ({"statusCode": 200, "isBase64Encoded": True, "body": "no base64"}, 200, b"no base64"),
        ({"body": "no status"}, 200, b'{"body": "no status"}'),
        ({"statusCode": 99999}, 200, b'{"statusCode": 99999}'),
    ],
)
def test_what_a_builtin_runtime_returns_becomes_the_answer(
    server: Server, result: dict[str, Any], status: int, body: bytes
) -> None:
    host = builtin(server, Outcome(status=OutcomeStatus.SUCCESS, payload=json.dumps(result).encode()))

    told, fields, content = server.request("GET", "/", host=host)

    assert (told, content) == (status, body)
    assert "x-fc-a" not in fields
    assert fields.get("x-a") == result.get("headers", {}).get("X-A")


def test_an_error_of_a_builtin_runtime_is_told_without_its_details(server: Server) -> None:
    failed = Outcome(
        status=OutcomeStatus.ERROR, payload=b'{"errorMessage":"secret"}', error_type="UnhandledInvocationError"
    )
    host = builtin(server, failed)

    status, fields, body = server.request("GET", "/", host=host)

    assert (status, body, fields["content-type"]) == (502, b"Internal Server Error", "application/json")


def domain(server: Server, routes: list[v3.PathConfig]) -> None:
    body = v3.CreateCustomDomainInput(
        domain_name="shop.test", protocol="HTTP", route_config=v3.RouteConfig(routes=routes)
    )
    server.v3().create_custom_domain(v3.CreateCustomDomainRequest(body=body))


def test_custom_domains_route_exact_paths_first_and_longer_prefixes_before_shorter(server: Server) -> None:
    for name in ("any", "api", "exact"):
        new_v3(server.v3(), name)
    domain(
        server,
        [
            v3.PathConfig(path="/*", function_name="any"),
            v3.PathConfig(path="/api/*", function_name="api"),
            v3.PathConfig(path="/api/x", function_name="exact"),
        ],
    )

    answers = [server.request("GET", path, host="shop.test") for path in ("/", "/api/y", "/api/x", "/api/x/")]

    assert [answer[0] for answer in answers] == [201] * 4
    assert "content-disposition" not in answers[0][1]
    called = [version.function.rpartition("/")[2] for version, _ in server.dispatcher.seen]
    assert called == ["any", "api", "exact", "api"]


def test_custom_domains_rewrite_path_and_query_on_the_way(server: Server) -> None:
    new_v3(server.v3(), "any")
    rewrite = v3.RewriteConfig(
        equal_rules=[v3.EqualRule(match="/old", replacement="/new?from=old")],
        wildcard_rules=[v3.WildcardRule(match="^/api/*", replacement="/$1")],
        regex_rules=[v3.RegexRule(match="^/(v[0-9])/(.*)$", replacement="/$2/$1")],
    )
    domain(server, [v3.PathConfig(path="/*", function_name="any", rewrite_config=rewrite)])

    bodies = [server.request("GET", path, host="shop.test:80")[2] for path in ("/old?a=1", "/api/u/1", "/v2/x", "/y")]

    assert bodies == [b"GET /new?from=old&a=1 ", b"GET /u/1 ", b"GET /x/v2 ", b"GET /y "]


def test_domains_are_read_changed_listed_and_deleted(server: Server) -> None:
    client = server.v3()
    domain(server, [])
    update = v3.UpdateCustomDomainInput(
        route_config=v3.RouteConfig(routes=[v3.PathConfig(path="/*", function_name="f")])
    )
    client.update_custom_domain("shop.test", v3.UpdateCustomDomainRequest(body=update))

    read = client.get_custom_domain("shop.test").body
    listed = client.list_custom_domains(v3.ListCustomDomainsRequest()).body

    assert read.route_config.routes[0].function_name == "f"
    assert [item.domain_name for item in listed.custom_domains] == ["shop.test"]
    client.delete_custom_domain("shop.test")
    with pytest.raises(Exception) as gone:
        client.get_custom_domain("shop.test")
    assert gone.value.code == "DomainNameNotFound"


@pytest.mark.parametrize("kind", ["oss", "log", "eventbridge"])
def test_other_kinds_of_triggers_are_refused(server: Server, kind: str) -> None:
    new_v3(server.v3(), "hello")
    body = v3.CreateTriggerInput(trigger_name="t", trigger_type=kind, trigger_config="{}")

    with pytest.raises(Exception) as refused:
        server.v3().create_trigger("hello", v3.CreateTriggerRequest(body=body))

    assert refused.value.status_code == 501


def timer(server: Server, expression: str, **more: Any) -> Any:
    config = json.dumps({"cronExpression": expression, "enable": True, "payload": "p", **more})
    body = v3.CreateTriggerInput(trigger_name="tick", trigger_type="timer", trigger_config=config)
    return server.v3().create_trigger("hello", v3.CreateTriggerRequest(body=body)).body


@pytest.mark.fact("F-013", "F-022")
def test_a_timer_calls_asynchronously_with_its_planned_time(server: Server) -> None:
    import time

    new_v3(server.v3(), "hello")
    made = timer(server, "@every 1s")
    planned = server.timers.planned("trigger:fc/hello/tick")
    assert planned is not None
    time.sleep(max(0.0, planned - time.time()) + 0.01)
    server.timers.tick()

    server.invocations(1)
    version, invocation = server.dispatcher.seen[0]
    event = json.loads(invocation.payload)

    assert json.loads(made.trigger_config)["cronExpression"] == "@every 1s"
    assert event["triggerName"] == "tick"
    assert event["payload"] == "p"
    assert event["triggerTime"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(planned))
    assert invocation.patient
    assert version.function == "fc/hello"


def test_timers_stop_with_their_trigger_and_while_they_are_switched_off(server: Server) -> None:
    new_v3(server.v3(), "hello")
    timer(server, "@every 1m")
    assert server.timers.planned("trigger:fc/hello/tick") is not None
    off = json.dumps({"cronExpression": "@every 1m", "enable": False})
    request = v3.UpdateTriggerRequest(body=v3.UpdateTriggerInput(trigger_config=off))
    server.v3().update_trigger("hello", "tick", request)
    assert server.timers.planned("trigger:fc/hello/tick") is None
    request = v3.UpdateTriggerRequest(body=v3.UpdateTriggerInput(trigger_config=off.replace("false", "true")))
    server.v3().update_trigger("hello", "tick", request)
    assert server.timers.planned("trigger:fc/hello/tick") is not None
    with pytest.raises(Exception) as used:
        server.v3().delete_function("hello")
    server.v3().delete_trigger("hello", "tick")

    assert used.value.code == "FunctionNotEmpty"
    assert server.timers.planned("trigger:fc/hello/tick") is None


@pytest.mark.parametrize(
    "expression", ["", "@every 0m", "@every 4d", "* * * * *", "61 0 0 * * *", "0 0 0 30 2 *", "* 0 0 * * *"]
)
def test_a_timer_that_never_comes_true_is_refused(server: Server, expression: str) -> None:
    new_v3(server.v3(), "hello")

    with pytest.raises(Exception) as refused:
        timer(server, expression)

    assert refused.value.code == "InvalidArgument"


def test_a_large_answer_goes_on_once_a_slow_caller_has_caught_up(server: Server) -> None:
    import socket
    import time

    new_v3(server.v3(), "hello")
    host = host_of(trigger(server, "hello", {}))
    pieces, size = 200, 64 * 1024
    paused = []

    def stream(invocation: Invocation) -> None:
        assert invocation.http is not None
        relay, left = invocation.http.relay, [pieces]
        relay.head(200, [], None)

        def pump() -> None:
            while left[0]:
                left[0] -= 1
                if not relay.data(b"x" * size):
                    paused.append(left[0])
                    relay.on_writable = pump
                    return
            relay.end()

        pump()

    server.dispatcher.serve = stream
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as caller:
        caller.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        time.sleep(0.3)
        received = bytearray()
        while block := caller.recv(1 << 20):
            received += block

    assert paused
    assert received.count(b"x") >= pieces * size
    assert received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "localhost", "x.localhost", "host.torpor.internal", "a.*.test", "shop", ""]
)
def test_names_that_would_take_the_api_away_are_no_custom_domains(server: Server, name: str) -> None:
    body = v3.CreateCustomDomainInput(domain_name=name, protocol="HTTP")

    with pytest.raises(Exception) as refused:
        server.v3().create_custom_domain(v3.CreateCustomDomainRequest(body=body))

    assert refused.value.code == "InvalidArgument"


def test_a_wildcard_domain_stands_for_one_label(server: Server) -> None:
    new_v3(server.v3(), "any")
    body = v3.CreateCustomDomainInput(
        domain_name="*.shop.test",
        protocol="HTTP",
        route_config=v3.RouteConfig(routes=[v3.PathConfig(path="/*", function_name="any")]),
    )
    server.v3().create_custom_domain(v3.CreateCustomDomainRequest(body=body))

    assert server.request("GET", "/", host="a.shop.test")[0] == 201
    assert server.request("GET", "/", host="a.b.shop.test")[0] == 400
    assert server.request("GET", "/", host="shop.test")[0] == 400


def test_without_keys_a_signed_trigger_takes_no_request_of_a_web_page(tmp_path: Path) -> None:
    with serving(tmp_path / "code", FcSettings()) as server:
        server.dispatcher.serve = serve
        new_v3(server.v3(), "hello")
        host = host_of(trigger(server, "hello", {"authType": "function"}))

        assert server.request("GET", "/", host=host)[0] == 201
        assert server.request("GET", "/", headers={"Origin": "http://a.test"}, host=host)[0] == 403
        assert server.request("GET", "/", headers={"Sec-Fetch-Site": "cross-site"}, host=host)[0] == 403
