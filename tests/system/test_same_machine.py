"""A server without keys takes requests of local programs, not those of web pages."""

from collections.abc import Iterator

import pytest

from torpor.api.same_machine import SameMachine
from torpor.transport import Exchange
from torpor.transport.exchange import Headers


def _exchange(**headers: str) -> Exchange:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Exchange("POST", "/2015-03-31/functions", Headers(raw), b"")


@pytest.fixture
def guard() -> Iterator[SameMachine]:
    yield SameMachine("127.0.0.1")


@pytest.mark.parametrize(
    "host",
    [
        "localhost:8700",
        "127.0.0.1",
        "127.0.0.1:8700",
        "[::1]:8700",
        "fn.lambda-url.localhost:8700",
        "stream-127.0.0.1:8700",
        "streaming-localhost",
        "",
    ],
)
def test_request_of_a_local_program_is_taken(guard: SameMachine, host: str) -> None:
    assert guard.refuses(_exchange(host=host)) == ""


def test_request_that_was_meant_for_another_host_is_refused(guard: SameMachine) -> None:
    for host in ("evil.example:8700", "stream-evil.example", "stream-"):
        assert host in guard.refuses(_exchange(host=host))


def test_request_of_a_web_page_is_refused(guard: SameMachine) -> None:
    assert guard.refuses(_exchange(host="localhost:8700", origin="http://evil.example"))
    assert guard.refuses(_exchange(host="localhost:8700", sec_fetch_site="cross-site"))


def test_request_of_a_page_that_a_service_shows_here_is_refused(guard: SameMachine) -> None:
    assert guard.refuses(_exchange(host="localhost:8700", sec_fetch_site="same-origin"))
    assert guard.refuses(_exchange(host="localhost:8700", sec_fetch_site="none")) == ""


def test_pages_may_reach_services_under_this_servers_names_only(guard: SameMachine) -> None:
    assert guard.refuses_host(_exchange(host="localhost:8700", origin="http://shop.localhost:8700")) == ""
    assert "evil.example" in guard.refuses_host(_exchange(host="evil.example:8700"))
