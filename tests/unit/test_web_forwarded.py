"""Header fields on their way to a server and back."""

import time
from typing import Any

import pytest

from torpor.contracts.web.forwarded import request_lines, response_lines, wanted_upgrade


def pairs(lines: bytes) -> list[tuple[str, str]]:
    assert lines.endswith(b"\r\n")
    given = (line.partition(": ") for line in lines.decode("latin-1").split("\r\n")[:-1])
    return [(name, value) for name, _, value in given]


def sent(*fields: tuple[str, str], peer: str = "192.0.2.7", **given: Any) -> dict[str, str]:
    """The fields inside by lower-case name; fails if one occurs twice."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    call = {"scheme": "http", "host": "shop.localhost", **given}
    prefix = call.pop("prefix", "")
    found = pairs(request_lines(raw, peer=peer, **call).of("the-id", prefix))
    assert len({name.lower() for name, _ in found}) == len(found)
    return {name.lower(): value for name, value in found}


def test_the_callers_own_fields_go_through_with_the_host() -> None:
    found = sent(("Host", "shop.localhost"), ("Cookie", " a=b "), ("X-Thing", "\xe4"))

    assert (found["host"], found["cookie"], found["x-thing"]) == ("shop.localhost", "a=b", "\xe4")


def test_fields_that_occur_several_times_stay_in_order() -> None:
    raw = [(b"Accept", b"a"), (b"X-A", b"1"), (b"Accept", b"b")]
    found = pairs(request_lines(raw, peer="", scheme="http", host="h").of("i"))

    assert found[:3] == [("Accept", "a"), ("X-A", "1"), ("Accept", "b")]


@pytest.mark.parametrize(
    "name",
    ["Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Expect",
     "Proxy-Authorization", "proxy-connection"],
)  # fmt: skip
def test_what_is_meant_for_the_connection_stays_behind(name: str) -> None:
    assert name.lower() not in sent(("Host", "h"), (name, "x"))


def test_fields_that_connection_names_stay_behind() -> None:
    found = sent(("X-Hop", "1"), ("Connection", "close, x-hop"), ("X-End", "2"))

    assert "x-hop" not in found
    assert found["x-end"] == "2"


def test_connection_cannot_take_the_host_away() -> None:
    assert sent(("Host", "shop.localhost"), ("Connection", "Host, close"))["host"] == "shop.localhost"


def test_the_server_is_told_who_asked_and_how() -> None:
    found = sent(("Host", "shop.localhost"), prefix="/services/shop")

    assert found["x-forwarded-for"] == "192.0.2.7"
    assert found["x-forwarded-proto"] == "http"
    assert found["x-forwarded-host"] == "shop.localhost"
    assert found["forwarded"] == 'for=192.0.2.7;host="shop.localhost";proto=http'
    assert found["x-forwarded-prefix"] == "/services/shop"
    assert found["x-request-id"] == "the-id"


def test_an_address_with_colons_is_quoted() -> None:
    assert sent(peer="2001:db8::1")["forwarded"].startswith('for="[2001:db8::1]";')


def test_a_host_cannot_say_more_than_a_host() -> None:
    assert sent(host='a";for=x')["forwarded"] == 'for=192.0.2.7;host="a;for=x";proto=http'


TOLD = (
    ("X-Forwarded-For", "198.51.100.1"),
    ("X-Forwarded-For", "10.0.0.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "shop.example"),
    ("X-Forwarded-Prefix", "/base/"),
    ("Forwarded", "for=198.51.100.1"),
)


def test_a_proxy_on_the_same_machine_is_believed() -> None:
    found = sent(*TOLD, peer="127.0.0.1", prefix="/services/shop")

    assert found["x-forwarded-for"] == "198.51.100.1, 10.0.0.1, 127.0.0.1"
    assert found["x-forwarded-proto"] == "https"
    assert found["x-forwarded-host"] == "shop.example"
    assert found["x-forwarded-prefix"] == "/base/services/shop"
    assert found["forwarded"] == 'for=198.51.100.1, for=127.0.0.1;host="shop.localhost";proto=http'


def test_another_caller_cannot_pass_for_someone_else() -> None:
    found = sent(*TOLD)

    assert found["x-forwarded-for"] == "192.0.2.7"
    assert found["x-forwarded-proto"] == "http"
    assert found["x-forwarded-host"] == "shop.localhost"
    assert "x-forwarded-prefix" not in found
    assert "198.51.100.1" not in found["forwarded"]


def test_a_request_id_of_the_callers_own_is_kept_if_it_can_stand_in_a_log() -> None:
    assert sent(("X-Request-ID", "abc-1"))["x-request-id"] == "abc-1"
    assert sent(("X-Request-ID", "a b"))["x-request-id"] == "the-id"
    assert sent(("X-Request-ID", "a" * 129))["x-request-id"] == "the-id"


@pytest.mark.parametrize(
    ("connection", "upgrade", "wanted"),
    [
        ("Upgrade", "websocket", "websocket"),
        ("keep-alive, upgrade", "WebSocket", "websocket"),
        ("keep-alive", "websocket", ""),
        ("Upgrade, HTTP2-Settings", "h2c", ""),
        ("Upgrade", "", ""),
    ],
)
def test_only_an_upgrade_to_websocket_is_one(connection: str, upgrade: str, wanted: str) -> None:
    assert wanted_upgrade(connection, upgrade) == wanted


def test_an_answers_fields_go_through_without_those_of_the_connection() -> None:
    fields = [
        (b"Date", b"now"), (b"connection", b"keep-alive, X-Hop"), (b"Keep-Alive", b"timeout=5"), (b"Set-Cookie", b"a"),
        (b"Transfer-Encoding", b"chunked"), (b"X-Hop", b"1"), (b"Set-Cookie", b"b"), (b"X-Forwarded-For", b"kept"),
    ]  # fmt: skip

    assert pairs(response_lines(fields)) == [
        ("Date", "now"), ("Set-Cookie", "a"), ("Set-Cookie", "b"), ("X-Forwarded-For", "kept"),
    ]  # fmt: skip


def test_names_without_end_do_not_fill_the_memory() -> None:
    from torpor.contracts.web import forwarded

    for number in range(5_000):
        sent((f"X-{number}", "1"))
        response_lines([(f"X-{number}".encode(), b"1")])

    assert len(forwarded._names) <= 1024
    assert len(forwarded._answered) <= 1024


def test_a_request_of_a_dozen_fields_takes_microseconds() -> None:
    raw = [(f"Field-{number}".encode(), b"value of a usual length") for number in range(12)]
    request_lines(raw, peer="127.0.0.1", scheme="http", host="h").of("i")
    best = min(_timed(raw) for _ in range(50))

    assert best < 50e-6, "ten times what it takes on a slow machine"


def _timed(raw: list[tuple[bytes, bytes]]) -> float:
    began = time.perf_counter()
    request_lines(raw, peer="127.0.0.1", scheme="http", host="h").of("i")
    return time.perf_counter() - began
