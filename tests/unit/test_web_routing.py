"""Which service a request is for."""

import pytest

from torpor.contracts.web.names import checked_name, record_name, service_name
from torpor.contracts.web.routing import addresses, route
from torpor.model.errors import InvalidRequest

SERVER = "127.0.0.1:8700"


@pytest.mark.parametrize("host", ["shop.localhost", "shop.localhost:8700", "SHOP.localhost:1", "shop.localhost."])
def test_a_host_name_names_the_service_and_leaves_the_path(host: str) -> None:
    assert route(host, "/a%20b?c=/services/x/") == ("shop", "/a%20b?c=/services/x/")


def test_the_host_goes_before_the_path() -> None:
    assert route("shop.localhost", "/services/other/a") == ("shop", "/services/other/a")


@pytest.mark.parametrize(
    ("target", "inside"),
    [
        ("/services/shop/a/b?c=d", "/a/b?c=d"),
        ("/services/shop/", "/"),
        ("/services/shop", "/"),
        ("/services/shop?c=d", "/?c=d"),
        ("/services/shop//a", "//a"),
    ],
)
def test_a_path_names_the_service_and_loses_that_part(target: str, inside: str) -> None:
    assert route(SERVER, target) == ("shop", inside)


@pytest.mark.parametrize(
    "host",
    [SERVER, "localhost:8700", "a.b.localhost", ".localhost", "-a.localhost", "a-.localhost", "shop.localhost.example",
     "shop.localhost:x", "a" * 100 + ".localhost", ""],
)  # fmt: skip
def test_other_hosts_name_no_service(host: str) -> None:
    assert route(host, "/2015-03-31/functions") is None


@pytest.mark.parametrize(
    "target", ["/services/", "/services", "/service/shop/", "/services/Shop/", "/services/a.b/", "*"]
)
def test_other_paths_name_no_service(target: str) -> None:
    assert route(SERVER, target) is None


def test_a_service_has_two_addresses_on_the_port_of_its_server() -> None:
    assert addresses("shop", f"http://{SERVER}") == (
        "http://shop.localhost:8700/",
        "http://127.0.0.1:8700/services/shop/",
    )
    assert addresses("shop", "http://[::1]:80/")[0] == "http://shop.localhost:80/"
    assert addresses("shop", "https://box")[0] == "https://shop.localhost/"


@pytest.mark.parametrize("name", ["a", "shop-2", "0", "a" * 40])
def test_names_that_can_stand_in_a_host_name_are_taken(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "a" * 41, "ä", "a\n"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="a-z, 0-9 and -"):
        checked_name(name)


def test_records_of_services_stand_in_a_space_of_their_own() -> None:
    assert record_name("shop") == "web/shop"
    assert service_name("web/shop") == "shop"
