"""Function URLs, the pure parts: which URL a request is for, whom it comes from, how many a second."""

import pytest

from torpor.contracts.lambda_.url_routing import UrlRoute, address, names_url, url_route
from torpor.contracts.lambda_.url_source import source_of
from torpor.scheduling import TokenBucket
from torpor.transport import Headers

ID = "abcdefghijklmnopqrstuvwxyz012345"
HOST = f"{ID}.lambda-url.us-east-1.localhost:8700"


@pytest.mark.parametrize(
    ("host", "target", "route"),
    [
        (HOST, "/", (ID, "/", False)),
        (HOST, "/a/b?c=d&c=e", (ID, "/a/b?c=d&c=e", False)),
        (HOST.upper(), "/", (ID, "/", False)),
        (f"{ID}.lambda-url.us-west-2.on.aws", "/2015-03-31/functions", (ID, "/2015-03-31/functions", False)),
        (f"{ID}.lambda-url.eu-central-1.example.com:443", "/_urls/x/y", (ID, "/_urls/x/y", False)),
        (HOST, "/services/shop/", (ID, "/services/shop/", False)),
        (HOST, "/%E4%2F..%00?%zz", (ID, "/%E4%2F..%00?%zz", False)),
        (HOST, "/\xe4 b\x7f", (ID, "/%E4%20b%7F", False)),
        (HOST, "*", (ID, "*", False)),
        ("x.y.lambda-url.us-east-1.localhost", "/", ("", "/", False)),
        (".lambda-url.us-east-1.localhost", "/", ("", "/", False)),
        ("127.0.0.1:8700", f"/_urls/{ID}", (ID, "/", True)),
        ("127.0.0.1:8700", f"/_urls/{ID}?a=1", (ID, "/?a=1", True)),
        ("127.0.0.1:8700", f"/_urls/{ID}/x//y?a=/b", (ID, "/x//y?a=/b", True)),
        ("127.0.0.1:8700", "/_urls/", ("", "/", True)),
        ("127.0.0.1:8700", "/_urls", None),
        ("127.0.0.1:8700", "/2015-03-31/functions", None),
        ("lambda-url.localhost", "/", None),
        ("", "/", None),
    ],
)
def test_a_request_is_for_the_url_of_its_host_or_else_of_its_path(
    host: str, target: str, route: tuple[str, str, bool] | None
) -> None:
    assert url_route(host, target) == (None if route is None else UrlRoute(*route))


def test_a_long_host_is_told_apart_at_once() -> None:
    assert names_url(f"{'a.' * 30_000}lambda-url.us-east-1.localhost")
    assert url_route("a" * 60_000 + ".lambda-url." + "b" * 1000, "/") == UrlRoute("a" * 60_000, "/", False)


@pytest.mark.parametrize(
    ("base", "domain", "url"),
    [
        ("http://127.0.0.1:8700", "", f"http://{ID}.lambda-url.us-east-1.localhost:8700/"),
        ("http://localhost", "", f"http://{ID}.lambda-url.us-east-1.localhost/"),
        ("http://[::1]:9", "", f"http://{ID}.lambda-url.us-east-1.localhost:9/"),
        ("http://0.0.0.0:9", "", f"http://{ID}.lambda-url.us-east-1.localhost:9/"),
        ("http://torpor.localhost:9", "", f"http://{ID}.lambda-url.us-east-1.localhost:9/"),
        ("http://192.168.1.4:8700", "", f"http://192.168.1.4:8700/_urls/{ID}/"),
        ("https://torpor.example.com", "", f"https://torpor.example.com/_urls/{ID}/"),
        ("http://127.0.0.1:8700", "https://x.org", f"https://{ID}.lambda-url.us-east-1.x.org/"),
        ("http://127.0.0.1:8700", "http://x.org:81", f"http://{ID}.lambda-url.us-east-1.x.org:81/"),
    ],
)
def test_the_address_shown_is_one_that_works_for_who_asks(base: str, domain: str, url: str) -> None:
    assert address(ID, "us-east-1", base, domain) == url


def headers(**fields: str) -> Headers:
    return Headers([(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()])


@pytest.mark.parametrize(
    ("peer", "fields", "address_", "chain", "scheme", "port"),
    [
        ("10.1.2.3", {"host": HOST}, "10.1.2.3", "10.1.2.3", "http", "8700"),
        ("10.1.2.3", {"host": HOST, "x_forwarded_for": "1.2.3.4"}, "10.1.2.3", "10.1.2.3", "http", "8700"),
        ("10.1.2.3", {"host": "h", "x_forwarded_proto": "https"}, "10.1.2.3", "10.1.2.3", "http", "80"),
        ("127.0.0.1", {"host": HOST}, "127.0.0.1", "127.0.0.1", "http", "8700"),
        ("", {"host": "h"}, "127.0.0.1", "127.0.0.1", "http", "80"),
        ("127.0.0.1", {"host": "h", "x_forwarded_for": "9.9.9.9, 1.2.3.4"},
         "1.2.3.4", "9.9.9.9, 1.2.3.4", "http", "80"),
        ("::1", {"host": "h", "x_forwarded_for": "2001:db8::1", "x_forwarded_proto": "https"},
         "2001:db8::1", "2001:db8::1", "https", "443"),
        ("127.0.0.1", {"host": "h", "x_forwarded_for": "[2001:db8::1]", "x_forwarded_port": "444"},
         "2001:db8::1", "[2001:db8::1]", "http", "444"),
        ("127.0.0.1", {"host": "h", "x_forwarded_for": "unknown"}, "127.0.0.1", "unknown", "http", "80"),
        ("127.0.0.1", {"host": "h", "x_forwarded_proto": "gopher", "x_forwarded_port": "x"},
         "127.0.0.1", "127.0.0.1", "http", "80"),
    ],
)  # fmt: skip
def test_only_a_proxy_of_this_machine_is_believed(
    peer: str, fields: dict[str, str], address_: str, chain: str, scheme: str, port: str
) -> None:
    source = source_of(peer, headers(**fields))

    assert (source.address, source.chain, source.scheme, source.port) == (address_, chain, scheme, port)


def test_a_bucket_lets_through_one_seconds_worth_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(8, 8, 100.0)

    assert [bucket.admits(1, 100.0) for _ in range(9)] == [True] * 8 + [False]
    assert not bucket.admits(1, 100.0625)
    assert bucket.admits(1, 100.125)
    assert not bucket.admits(1, 100.125)
    assert sum(bucket.admits(1, 100.125 + step / 64) for step in range(65)) == 8


def test_a_bucket_saves_up_no_more_than_a_seconds_worth() -> None:
    bucket = TokenBucket(2, 2, 0.0)

    assert [bucket.admits(1, 1000.0) for _ in range(3)] == [True, True, False]
