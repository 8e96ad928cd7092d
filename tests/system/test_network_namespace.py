"""The network of a sandbox, made for real: as root, and as an ordinary account in a user namespace."""

import ctypes
import encodings.idna  # noqa: F401  an ordinary account may be unable to read it later
import errno
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from torpor.sandbox.launcher import network

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
pytestmark = pytest.mark.privileged


class NamespaceForbidden(Exception):
    pass


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise NamespaceForbidden


def _as_root() -> None:
    _unshare(NEW_NETWORK)


def _as_ordinary_account() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    user, group = os.geteuid(), os.getegid()
    _unshare(NEW_USER | NEW_NETWORK)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _inside(enter: Callable[[], None], body: Callable[[], Any]) -> Any:
    """Run `body` in a forked child after `enter`; its result through a pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter()
            os.write(writing, json.dumps(body()).encode())
            os._exit(0)
        except NamespaceForbidden:
            os._exit(77)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 77:
        pytest.skip("this host forbids making the namespace")
    assert status == 0
    return json.loads(data)


@pytest.fixture(params=[_as_root, _as_ordinary_account], ids=["root", "ordinary account"])
def enter(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    if request.param is _as_root and os.geteuid() != 0:
        pytest.skip("needs root")
    yield request.param


def _accepted(listener: socket.socket) -> socket.socket:
    listener.settimeout(5)
    return listener.accept()[0]


def test_the_api_is_reached_at_its_address(enter: Callable[[], None]) -> None:
    def body() -> str:
        sockets = network.configure()
        client = socket.create_connection(("169.254.100.1", 9001), timeout=5)
        client.sendall(b"hello")
        return _accepted(sockets.api).recv(5).decode()

    assert _inside(enter, body) == "hello"


def test_a_connection_to_anywhere_arrives_at_egress_with_its_destination(enter: Callable[[], None]) -> None:
    def body() -> list[Any]:
        sockets = network.configure()
        if sockets.egress is None:
            return [sockets.egress_problem]
        told = []
        for destination in (("93.184.216.34", 443), ("169.254.100.2", 8000), ("169.254.169.254", 80), ("10.1.2.3", 22)):
            with socket.create_connection(destination, timeout=5) as client, _accepted(sockets.egress) as accepted:
                told.append([network.original_destination(accepted), client.getpeername()])
        return told

    told = _inside(enter, body)
    if isinstance(told[0], str):
        pytest.skip(told[0])
    places = [["93.184.216.34", 443], ["169.254.100.2", 8000], ["169.254.169.254", 80], ["10.1.2.3", 22]]
    assert told == [[place, place] for place in places]


def test_servers_of_the_function_itself_are_reached_directly(enter: Callable[[], None]) -> None:
    def body() -> list[bool]:
        network.configure()
        reached = []
        for address in ("127.0.0.1", "127.0.0.53", "169.254.100.1", "::1"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.create_server((address, 0), family=family) as server:
                port = server.getsockname()[1]
                with socket.create_connection((address, port), timeout=5) as client, _accepted(server) as accepted:
                    reached.append(accepted.getpeername() == client.getsockname())
        return reached

    assert _inside(enter, body) == [True] * 4


def test_a_name_query_arrives_and_its_answer_comes_from_the_resolvers_address(enter: Callable[[], None]) -> None:
    def body() -> list[Any]:
        sockets = network.configure()
        assert sockets.dns is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect(("169.254.100.2", 53))
            client.send(b"query")
            sockets.dns.settimeout(5)
            query, sender = sockets.dns.recvfrom(512)
            sockets.dns.sendto(b"answer", sender)
            return [query.decode(), client.recv(512).decode()]

    assert _inside(enter, body) == ["query", "answer"]


def test_ipv6_and_other_datagrams_fail_at_once(enter: Callable[[], None]) -> None:
    def body() -> list[Any]:
        network.configure()
        started = time.monotonic()
        with socket.socket(socket.AF_INET6) as client:
            refused = client.connect_ex(("2606:4700::1111", 443))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect(("8.8.8.8", 123))
            client.send(b"time?")
            unheard = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return [refused, unheard, time.monotonic() - started < 1]

    assert _inside(enter, body) == [errno.ENETUNREACH, errno.ECONNREFUSED, True]


def test_without_egress_connections_fail_at_once_and_the_reason_is_told(enter: Callable[[], None]) -> None:
    def body() -> list[Any]:
        sockets = network.configure(egress=False)
        with socket.socket() as client:
            refused = client.connect_ex(("93.184.216.34", 443))
        return [sockets.egress, sockets.dns, sockets.egress_problem, refused]

    assert _inside(enter, body) == [None, None, "switched off", errno.ENETUNREACH]


def test_a_kernel_refusing_the_rule_costs_only_egress(
    enter: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> list[Any]:
        monkeypatch.setattr(network, "_NEW_TABLE", 99)
        sockets = network.configure()
        with socket.create_connection(("169.254.100.1", 9001), timeout=5):
            return [sockets.egress, sockets.dns, "nf_tables" in sockets.egress_problem]

    assert _inside(enter, body) == [None, None, True]


def test_outside_a_namespace_of_its_own_nothing_is_changed_without_rights() -> None:
    def body() -> str:
        try:
            network.configure()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "configured"

    def without_rights() -> None:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)

    assert _inside(without_rights, body) == "EPERM"
