"""The routes of web services: what the operator asks for, and what callers of services see."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.web_face import WebServer, archive, serving

from torpor.model.errors import NoMemory, ShuttingDown, Throttled
from torpor.model.failure import Failure, FailureKind
from torpor.model.invocation import HttpRequest

SHOP = "shop.localhost"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    with serving(tmp_path) as running:
        yield running


# Operations


def test_a_deployed_service_shows_its_settings_and_addresses(server: WebServer) -> None:
    shown = server.deploy(port=5000, memory=256, environment={"A": "1"}, concurrency=3, timeout=5)

    assert shown["kind"] == "serverless"
    assert (shown["start"], shown["port"], shown["memory"], shown["concurrency"]) == ("./run", 5000, 256, 3)
    assert (shown["environment"], shown["timeout"], shown["max_instances"]) == ({"A": "1"}, 5, None)
    assert shown["urls"] == [
        f"http://shop.localhost:{server.port}/", f"http://127.0.0.1:{server.port}/services/shop/",
    ]  # fmt: skip


def test_defaults_are_those_of_the_contract(server: WebServer) -> None:
    shown = server.deploy()

    assert (shown["port"], shown["memory"], shown["timeout"], shown["concurrency"]) == (8080, 512, 900, 80)


def test_a_persistent_service_has_one_instance_and_no_request_limit(server: WebServer) -> None:
    shown = server.deploy(persistent=True, timeout=5)

    assert (shown["kind"], shown["timeout"], shown["min_instances"], shown["max_instances"]) == (
        "persistent",
        None,
        1,
        1,
    )
    assert server.functions.get("web/shop").latest.version.timeout_s > 86_400


def test_what_was_said_of_one_kind_counts_again_after_a_change_of_kind(server: WebServer) -> None:
    server.deploy(timeout=5)
    server.deploy(persistent=True)

    assert server.deploy(persistent=False)["timeout"] == 5


def test_services_are_listed_by_name_and_functions_of_others_are_not(server: WebServer) -> None:
    server.deploy("b")
    server.deploy("a", persistent=True)

    listed = server.request("GET", "/_torpor/services").json["services"]

    assert [(service["name"], service["kind"]) for service in listed] == [("a", "persistent"), ("b", "serverless")]
    assert server.functions.names() == []


def test_the_build_makes_what_is_deployed(server: WebServer) -> None:
    server.put("shop", {"build": "make", "environment": {"A": "1"}})
    end = server.followed("shop")

    assert (end["stage"], end["output"], end["exit_status"]) == ("succeeded", "$ make\n", None)
    code = server.functions.get("web/shop").latest.version.code
    assert (server.folder / "code" / code.digest / "built").read_text() == "make"
    (order,) = server.builder.orders
    assert order.program == ("/bin/bash", "-c", "umask 022\nmake")
    variables = order.variables({"PATH": "/usr/bin"}, "/app")
    assert (variables["A"], variables["PORT"], variables["HOME"]) == ("1", "8080", "/root")
    assert server.builder.discarded


def test_without_a_build_command_the_source_is_deployed_as_it_is(server: WebServer) -> None:
    server.deploy()

    code = server.functions.get("web/shop").latest.version.code
    assert (server.folder / "code" / code.digest / "server.py").read_text() == "serve()"
    assert server.builder.orders == []


def test_a_failed_build_tells_why_and_changes_nothing(server: WebServer) -> None:
    before = server.deploy(memory=256)

    assert server.put("shop", {"build": "fail", "memory": 512}).status == 202
    end = server.followed("shop")

    assert (end["stage"], end["exit_status"], end["output"]) == ("failed", 3, "$ fail\n")
    assert end["message"] == "The build command `fail` ended with exit status 3."
    assert server.request("GET", "/_torpor/services/shop").json == before


def test_a_failed_first_build_leaves_no_service(server: WebServer) -> None:
    server.put("shop", {"build": "fail"})
    server.followed("shop")

    assert server.request("GET", "/_torpor/services/shop").status == 404
    assert server.request("GET", "/", host=SHOP).status == 404


def test_one_service_is_deployed_once_at_a_time_and_goes_on_serving_meanwhile(server: WebServer) -> None:
    server.deploy()
    assert server.put("shop", {"build": "wait"}).status == 202

    assert server.put("shop").status == 409
    assert server.request("DELETE", "/_torpor/services/shop").status == 409
    assert server.request("GET", "/", host=SHOP).status == 201
    server.builder.go_on.set()
    assert server.followed("shop")["stage"] == "succeeded"


def test_settings_change_without_a_build(server: WebServer) -> None:
    before = server.deploy(build="make", environment={"A": "1"})

    changed = server.request(
        "PUT", "/_torpor/services/shop", b'{"port": 5000, "persistent": true}', Content_Type="application/json"
    )

    assert changed.status == 200
    assert (changed.json["port"], changed.json["kind"], changed.json["build"]) == (5000, "persistent", "make")
    assert changed.json["environment"] == {"A": "1"}
    assert changed.json["code_bytes"] == before["code_bytes"]
    assert changed.json["revision"] != before["revision"]
    assert len(server.builder.orders) == 1


def test_a_deleted_service_is_gone(server: WebServer) -> None:
    server.deploy()

    assert server.request("DELETE", "/_torpor/services/shop").json == {"deleted": "shop"}
    assert server.request("DELETE", "/_torpor/services/shop").status == 404
    assert server.request("GET", "/", host=SHOP).status == 404


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("Shop", {}, "a-z, 0-9 and -"),
        ("a" * 41, {}, "1 to 40"),
        ("shop", {"start": " "}, "start command is empty"),
        ("shop", {"memory": 64}, "128 to 7076 MB"),
        ("shop", {"timeout": 901}, "0.1 to 900 s"),
        ("shop", {"port": 80}, "1024 to 65535"),
        ("shop", {"concurrency": 0}, "1 to 1000"),
        ("shop", {"environment": {"PORT": "1"}}, "--port"),
        ("shop", {"environment": {"A-B": "1"}}, "letters, digits and _"),
        ("shop", {"environment": {"A": "x" * 40_000}}, "more than 32768"),
        ("shop", {"min_instances": 3, "max_instances": 2}, "min_instances"),
        ("shop", {"unknown": 1}, "unknown"),
        ("shop", {"memory": "a lot"}, "memory"),
        ("shop", {"build": "x" * 9_000}, "build command"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_bound(
    server: WebServer, name: str, settings: dict[str, Any], text: str
) -> None:
    refused = server.put(name, settings)

    assert refused.status == 400
    assert text in refused.json["message"]


def test_a_service_needs_a_start_command(server: WebServer) -> None:
    refused = server.request("PUT", "/_torpor/services/shop", archive())

    assert refused.status == 400
    assert "no start command" in refused.json["message"]


@pytest.mark.parametrize(
    "source", [b"no zip", archive({".torpor-system/etc/x": "1"}), archive({"./.torpor-system/x": ""})]
)
def test_sources_that_are_no_archives_or_take_the_platforms_name_are_refused(server: WebServer, source: bytes) -> None:
    assert server.put("shop", source=source).status == 400


def test_a_source_that_leads_out_of_its_folder_fails_the_deployment(server: WebServer) -> None:
    server.put("shop", source=archive({"../x": "1"}))

    assert "leads out of the package" in server.followed("shop")["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/_torpor/services/shop", 405),
        ("PUT", "/_torpor/services", 405),
        ("GET", "/_torpor/services/shop", 404),
        ("GET", "/_torpor/services/shop/other", 404),
        ("GET", "/_torpor/services/shop/deployment", 404),
        ("PUT", "/_torpor/services/shop", 400),
    ],
)
def test_other_requests_are_refused(server: WebServer, method: str, path: str, status: int) -> None:
    refused = server.request(method, path)

    assert refused.status == status
    assert refused.json["message"]


def test_only_operators_see_services(tmp_path: Path) -> None:
    with serving(tmp_path, allowed=lambda exchange: False) as server:
        assert server.request("GET", "/_torpor/services").status == 403
        assert server.put("shop").status == 403


# Traffic


@pytest.mark.parametrize(
    ("host", "target", "inside"), [(SHOP, "/a%20b?c=d", "/a%20b?c=d"), ("", "/services/shop/a?c=d", "/a?c=d")]
)
def test_a_request_reaches_the_server_by_host_and_by_path(
    server: WebServer, host: str, target: str, inside: str
) -> None:
    server.deploy()

    answer = server.request("POST", target, b"body", host=host, X_Mine="2")

    assert (answer.status, answer.fields["X-Own"]) == (201, "1")
    told = answer.json
    assert (told["method"], told["target"], told["body"]) == ("POST", inside, "body")
    fields = {name.lower(): value for name, value in told["fields"]}
    assert fields["x-mine"] == "2"
    assert fields["host"] == (host or f"127.0.0.1:{server.port}")
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields.get("x-forwarded-prefix") == (None if host else "/services/shop")
    assert fields["x-request-id"] == server.dispatcher.seen[0][1].id


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/a?b", "/services/shop/a?b"),
        ("http://{host}/a", "http://{host}/services/shop/a"),
        ("/services/shop/a", "/services/shop/a"),
        ("/services/other/", "/services/other/"),
        ("/base/services/shop/a", "/base/services/shop/a"),
        ("//cdn.example/a", "//cdn.example/a"),
        ("https://example.com/a", "https://example.com/a"),
        ("a", "a"),
    ],
)
def test_a_redirection_stays_below_the_path_of_its_service(server: WebServer, location: str, seen: str) -> None:
    server.deploy()
    host = f"127.0.0.1:{server.port}"
    given, wanted = location.format(host=host), seen.format(host=host)
    server.dispatcher.inside = lambda request, body: (
        request.relay.head(302, [("X-A", "/b"), ("Location", given)], 0) or request.relay.end()
    )

    by_path, by_host = server.request("GET", "/services/shop/x"), server.request("GET", "/x", host=SHOP)

    assert (by_path.status, by_path.fields["Location"], by_path.fields["X-A"]) == (302, wanted, "/b")
    assert by_host.fields["Location"] == given


@pytest.mark.parametrize("query", ["", "?a=b"])
def test_a_browser_is_led_to_the_slash_that_relative_links_need(server: WebServer, query: str) -> None:
    server.deploy()
    target = f"/services/shop{query}"

    moved = server.request("GET", target, Accept="text/html,*/*;q=0.8")

    assert (moved.status, moved.fields["Location"]) == (308, f"/services/shop/{query}")
    assert server.request("GET", target, Accept="*/*").json["target"] == f"/{query}"
    assert server.request("POST", target, b"x", Accept="text/html").json["target"] == f"/{query}"


def test_a_request_for_no_service_says_so(server: WebServer) -> None:
    answer = server.request("GET", "/", host="other.localhost")

    assert answer.status == 404
    assert answer.text.startswith("There is no service other here")


def test_a_failed_start_is_told_with_the_last_output(server: WebServer) -> None:
    server.deploy(start="gunicorn app:app")
    server.dispatcher.inside = lambda request, body: None
    server.dispatcher.failure = Failure(
        kind=FailureKind.EXIT, code=127, starting=True, output=((0.0, "gunicorn: command not found\n"),)
    )

    answer = server.request("GET", "/", host=SHOP)

    assert answer.status == 502
    assert answer.fields["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith("Port Some(8080) is not being listened to by the service\n")
    assert "127" in answer.text and "command not found" in answer.text


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [(Throttled("", reason="x"), 429, "1"), (ShuttingDown("The server is stopping."), 503, None)],
)
def test_a_request_that_finds_no_room_is_told_so(server: WebServer, error: Any, status: int, retry: str | None) -> None:
    server.deploy()
    server.dispatcher.error = error

    answer = server.request("GET", "/", host=SHOP)

    assert (answer.status, answer.fields["Retry-After"]) == (status, retry)


def test_a_request_for_which_there_is_no_memory_is_told_so(server: WebServer) -> None:
    server.deploy()
    server.dispatcher.error = NoMemory("No memory was free for an environment of 512 MB within 1 s.", reason="x")

    answer = server.request("GET", "/", host=SHOP)

    assert (answer.status, answer.fields["Retry-After"]) == (429, "1")
    assert answer.text.startswith("No memory was free for an environment of 512 MB within 1 s\n")
    assert "--memory-budget-mb" in answer.text


@pytest.mark.parametrize("length", [10, None, 1_000_000])
def test_an_answer_that_breaks_off_cannot_be_taken_for_complete(server: WebServer, length: int | None) -> None:
    server.deploy()

    def inside(request: HttpRequest, body: bytes) -> None:
        request.relay.head(200, [], length)
        request.relay.data(b"half")

    server.dispatcher.inside = inside
    server.dispatcher.failure = Failure(kind=FailureKind.OVERSIZE)

    with pytest.raises((OSError, EOFError, __import__("http").client.HTTPException)):
        server.request("GET", "/", host=SHOP)


def test_an_answer_without_a_known_length_arrives_whole(server: WebServer) -> None:
    server.deploy()

    def inside(request: HttpRequest, body: bytes) -> None:
        request.relay.head(200, [("Content-Type", "text/plain")], None)
        for piece in (b"a", b"b" * 100_000, b"c"):
            request.relay.data(piece)
        request.relay.end()

    server.dispatcher.inside = inside

    assert server.request("GET", "/", host=SHOP).body == b"a" + b"b" * 100_000 + b"c"


def test_a_body_over_the_limit_is_refused_for_the_serverless_kind_only(server: WebServer) -> None:
    server.deploy()
    server.deploy("long", persistent=True)
    body = bytes(32 * 1024 * 1024 + 1)
    server.dispatcher.inside = lambda request, sent: request.relay.head(204, [], 0) or request.relay.end()

    refused = server.request("POST", "/", body, host=SHOP)

    assert refused.status == 413
    assert "33554432 bytes" in refused.text
    assert server.request("POST", "/", body, host="long.localhost").status == 204


def test_a_body_in_chunks_is_counted_while_it_comes(server: WebServer) -> None:
    server.deploy()

    assert server.chunked(SHOP, [b"a" * 1000, b"b"]).json["body"] == "a" * 1000 + "b"
    assert server.chunked(SHOP, [bytes(1024 * 1024)] * 33).status == 413


@pytest.mark.parametrize("name", ["WebSocket", "websocket"])
def test_a_websocket_is_refused_by_a_serverless_service_in_words(server: WebServer, name: str) -> None:
    server.deploy()

    refused = server.request("GET", "/", host=SHOP, Connection="Upgrade", Upgrade=name, Sec_WebSocket_Key="x")

    assert refused.status == 426
    assert "persistent" in refused.text
    assert server.dispatcher.seen == []


def test_a_websocket_reaches_a_persistent_service_as_an_upgrade(server: WebServer) -> None:
    server.deploy(persistent=True)

    server.request("GET", "/", host=SHOP, Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key="x")

    http = server.dispatcher.seen[0][1].http
    assert http is not None
    assert http.upgrade == "websocket"
    assert b"\r\nSec-WebSocket-Key: x\r\n" in http.lines


def test_other_offers_to_change_the_protocol_are_passed_over(server: WebServer) -> None:
    server.deploy()

    answer = server.request("GET", "/", host=SHOP, Connection="Upgrade, HTTP2-Settings", Upgrade="h2c")

    assert answer.status == 201
    assert "upgrade" not in {name.lower() for name, _ in answer.json["fields"]}


def test_settings_may_come_as_json_with_a_character_set(server: WebServer) -> None:
    server.deploy()

    body = json.dumps({"memory": 1024}).encode()
    changed = server.request("PUT", "/_torpor/services/shop", body, Content_Type="application/json; charset=utf-8")

    assert changed.json["memory"] == 1024
