"""Egress for real: a network namespace, the relay process, and servers on the host."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import IPv4Network

import pytest

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.launcher import network
from torpor.sandbox.linux import egress as egress_module
from torpor.sandbox.linux.egress import EgressPolicy, EgressRelay

pytestmark = pytest.mark.privileged
RESOLVER = "127.77.0.1"
BIG = 50 << 20


class Namespace:
    """A network namespace kept alive by a child process, and its sockets."""

    def __init__(self) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                here.close()
                if ctypes.CDLL(None).unshare(0x40000000) != 0:
                    os._exit(77)
                sockets = network.configure()
                held = [made.fileno() for made in (sockets.egress, sockets.dns) if made is not None]
                socket.send_fds(there, [b"x"], held)
                there.recv(1)
            finally:
                os._exit(0)
        there.close()
        self._child = here
        data, fds, _, _ = socket.recv_fds(here, 1, 2)
        if not data or len(fds) != 2:
            self.close()
            pytest.skip("this host makes no network namespaces with NAT")
        self.tcp, self.dns = fds

    def close(self) -> None:
        self._child.close()
        os.waitpid(self.pid, 0)

    def argv(self, code: str) -> list[str]:
        enter = f"import ctypes, os; ctypes.CDLL(None).setns(os.open('/proc/{self.pid}/ns/net', 0), 0x40000000)\n"
        tools = "import socket, struct\ndef dial(*to): return socket.create_connection(to, timeout=20)\n"
        return [sys.executable, "-c", enter + tools + textwrap.dedent(code)]

    async def run(self, code: str) -> str:
        """Run Python inside; what it printed, and a failure's last line."""
        process = await asyncio.create_subprocess_exec(*self.argv(code), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, error = await process.communicate()
        return (out.decode() + (error.decode().splitlines() or [""])[-1]).strip()


@pytest.fixture
def inside() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    namespace = Namespace()
    yield namespace
    namespace.close()


Serve = Callable[[Callable[[socket.socket], None]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a host server on 127.0.0.1 that runs a function in a thread for each connection; its port."""
    servers: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(handle: Callable[[socket.socket], None]) -> int:
        server = socket.create_server(("127.0.0.1", 0), backlog=2048)
        servers.append(server)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.settimeout(30)
                thread = threading.Thread(target=run, args=(connection,))
                threads.append(thread)
                thread.start()

        def run(connection: socket.socket) -> None:
            with connection:
                handle(connection)

        threads.append(threading.Thread(target=accept))
        threads[-1].start()
        return int(server.getsockname()[1])

    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join(10)


@pytest.fixture
async def relays() -> AsyncIterator[Callable[..., "asyncio.Future[EgressRelay]"]]:
    made: list[EgressRelay] = []

    async def start(namespace: Namespace, *ports: int, **policy: object) -> EgressRelay:
        relay = EgressRelay(EgressPolicy(allow_loopback_ports=frozenset(ports), **policy))  # type: ignore[arg-type]
        made.append(relay)
        await relay.start()
        relay.attach("a", namespace.tcp, namespace.dns)
        return relay

    yield start  # type: ignore[misc]
    for relay in made:
        await relay.close()


def _hello(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def _read_all(connection: socket.socket) -> bytes:
    chunks = []
    while chunk := connection.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


async def _eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    for _ in range(int(seconds / 0.02)):
        if condition():
            return True
        await asyncio.sleep(0.02)
    return False


async def test_an_allowed_port_of_the_host_is_reached_by_urllib(inside: Namespace, serve: Serve, relays) -> None:
    port = serve(_hello)
    await relays(inside, port)
    code = f"import urllib.request; print(urllib.request.urlopen('http://169.254.100.2:{port}/').read())"
    assert await inside.run(code) == "b'hello'"


async def test_other_ports_of_the_host_are_refused(inside: Namespace, serve: Serve, relays) -> None:
    port = serve(_hello)
    relay = await relays(inside, port + 1)
    assert "ConnectionResetError" in await inside.run(f"dial('169.254.100.2', {port}).recv(1)")
    assert await _eventually(lambda: relay.statistics().refused == 1)
    assert relay.statistics().accepted == 0


@pytest.mark.parametrize("address", ["169.254.169.254", "169.254.1.1", "100.100.100.200", "198.51.100.7"])
async def test_refused_destinations_are_reset(inside: Namespace, relays, address: str) -> None:
    relay = await relays(inside, 80, denied_networks=(IPv4Network("198.51.100.0/24"),))
    assert "ConnectionResetError" in await inside.run(f"dial('{address}', 80).recv(1)")
    assert await _eventually(lambda: relay.statistics().refused == 1)


@pytest.mark.parametrize(
    ("address", "port", "own", "target"),
    [
        ("169.254.100.2", 80, False, "127.0.0.1"),
        ("169.254.100.2", 81, False, None),
        ("127.0.0.1", 80, True, None),
        ("0.0.0.0", 80, True, None),
        ("224.0.0.1", 80, False, None),
        ("255.255.255.255", 80, False, None),
        ("10.0.0.5", 80, True, "10.0.0.5"),
        ("10.0.0.5", 81, True, None),
        ("10.0.0.6", 81, False, "10.0.0.6"),
        ("10.9.0.1", 80, False, None),
    ],
)
def test_a_policy_says_where_to_connect(address: str, port: int, own: bool, target: str | None) -> None:
    policy = EgressPolicy(allow_loopback_ports=frozenset({80}), denied_networks=(IPv4Network("10.9.0.0/16"),))
    assert policy.target(address, port, own=own) == target


async def test_the_listener_itself_leads_nowhere(inside: Namespace, relays) -> None:
    await relays(inside)
    with socket.socket(fileno=os.dup(inside.tcp)) as listener:
        port = listener.getsockname()[1]
    assert "ConnectionResetError" in await inside.run(f"dial('127.0.0.1', {port}).recv(1)")


async def test_the_hosts_own_address_is_treated_like_the_host(inside: Namespace, relays) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no address but loopback")
        own = probe.getsockname()[0]
    relay = await relays(inside)
    with socket.create_server((own, 0)) as server:
        port = server.getsockname()[1]
        assert "ConnectionResetError" in await inside.run(f"dial('{own}', {port}).recv(1)")
    assert await _eventually(lambda: relay.statistics().refused == 1)


async def test_a_port_nobody_listens_on_is_reset(inside: Namespace, relays) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    relay = await relays(inside, port)
    assert "ConnectionResetError" in await inside.run(f"dial('169.254.100.2', {port}).recv(1)")
    assert await _eventually(lambda: (relay.statistics().failed, relay.statistics().open) == (1, 0))


async def test_a_half_closed_connection_still_carries_the_answer(inside: Namespace, serve: Serve, relays) -> None:
    def count(connection: socket.socket) -> None:
        connection.sendall(b"%d" % len(_read_all(connection)))

    port = serve(count)
    relay = await relays(inside, port)
    code = f"c = dial('169.254.100.2', {port}); c.sendall(b'x' * 12345); c.shutdown(1); print(c.recv(99), c.recv(9))"
    assert await inside.run(code) == "b'12345' b''"
    assert await _eventually(lambda: relay.statistics().open == 0)


async def test_the_other_side_closing_first_ends_only_its_direction(inside: Namespace, serve: Serve, relays) -> None:
    got: list[bytes] = []

    def say_and_listen(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        got.append(_read_all(connection))

    port = serve(say_and_listen)
    await relays(inside, port)
    code = f"c = dial('169.254.100.2', {port}); print(c.recv(9), c.recv(9)); c.sendall(b'still here'); c.close()"
    assert await inside.run(code) == "b'bye' b''"
    assert await _eventually(lambda: got == [b"still here"])


async def test_a_reset_by_the_other_side_arrives_as_a_reset(inside: Namespace, serve: Serve, relays) -> None:
    def slam(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    port = serve(slam)
    await relays(inside, port)
    code = f"c = dial('169.254.100.2', {port}); c.sendall(b'x'); c.recv(1)"
    assert "ConnectionResetError" in await inside.run(code)


async def test_a_reset_by_the_function_arrives_as_a_reset(inside: Namespace, serve: Serve, relays) -> None:
    seen: list[str] = []

    def wait(connection: socket.socket) -> None:
        try:
            connection.sendall(b"go")
            connection.recv(1)
        except OSError as error:
            seen.append(type(error).__name__)

    port = serve(wait)
    await relays(inside, port)
    linger = "c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))"
    await inside.run(f"c = dial('169.254.100.2', {port}); c.recv(2); {linger}; c.close()")
    assert await _eventually(lambda: seen == ["ConnectionResetError"])


async def test_a_large_transfer_both_ways_arrives_intact(inside: Namespace, serve: Serve, relays) -> None:
    def echo(connection: socket.socket) -> None:
        while chunk := connection.recv(1 << 18):
            connection.sendall(chunk)

    port = serve(echo)
    await relays(inside, port)
    code = f"""
        import hashlib, threading
        c = dial('169.254.100.2', {port})
        data = bytes(range(251)) * ({BIG} // 251 + 1)
        def send():
            c.sendall(data); c.shutdown(1)
        threading.Thread(target=send).start()
        seen, size = hashlib.sha1(), 0
        while chunk := c.recv(1 << 18):
            seen.update(chunk); size += len(chunk)
        print(size == len(data) and seen.hexdigest() == hashlib.sha1(data).hexdigest())
        """
    assert await inside.run(code) == "True"


async def test_a_slow_reader_holds_the_sender_back(inside: Namespace, serve: Serve, relays) -> None:
    sent: list[int] = [0]
    go = threading.Event()

    def pour(connection: socket.socket) -> None:
        for _ in range(BIG >> 16):
            connection.sendall(bytes(1 << 16))
            sent[0] += 1 << 16

    port = serve(pour)
    relay = await relays(inside, port)
    code = f"c = dial('169.254.100.2', {port}); input(); n = 0\nwhile d := c.recv(1 << 18): n += len(d)\nprint(n)"
    run = await asyncio.create_subprocess_exec(*inside.argv(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert await _eventually(lambda: sent[0] > 0)
    before = -1
    while before != sent[0]:
        before = sent[0]
        await asyncio.sleep(0.2)
    assert before < BIG // 2
    with open(f"/proc/{relay.process_id}/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert resident < 100_000
    go.set()
    out, _ = await run.communicate(b"\n")
    assert int(out) == BIG


async def test_connections_over_the_limit_are_reset(inside: Namespace, serve: Serve, relays) -> None:
    def wait(connection: socket.socket) -> None:
        connection.recv(1)

    port = serve(wait)
    relay = await relays(inside, port)
    code = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        held = [dial('169.254.100.2', {port}) for _ in range(1024)]
        try:
            print(dial('169.254.100.2', {port}).recv(1))
        except ConnectionResetError:
            print('reset')
        """
    assert await inside.run(code) == "reset"
    assert await _eventually(lambda: relay.statistics().open == 0)


async def test_detaching_resets_what_is_open(inside: Namespace, serve: Serve, relays) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"go")
        with contextlib.suppress(ConnectionResetError):
            connection.recv(1)

    port = serve(greet)
    relay = await relays(inside, port)
    code = f"c = dial('169.254.100.2', {port}); print(c.recv(2), flush=True); c.recv(1)"
    run = await asyncio.create_subprocess_exec(*inside.argv(code), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert await run.stdout.readline() == b"b'go'\n"
    relay.detach("a")
    _, error = await run.communicate()
    assert b"ConnectionResetError" in error
    assert relay.statistics().attached == 0


def _answer_names(resolver: socket.socket, answer: Callable[[bytes], bytes]) -> threading.Thread:
    def run() -> None:
        while True:
            try:
                query, client = resolver.recvfrom(512)
            except OSError:
                return
            if query == b"end":
                return
            resolver.sendto(answer(query), client)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


QUERY = "b'\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x01a\\x00\\x00\\x01\\x00\\x01'"
ASK = f"""
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(20)
    u.connect(('169.254.100.2', 53)); u.send({QUERY}); print(u.recv(512))
    """


async def test_a_name_query_is_answered_by_the_hosts_resolver(inside: Namespace, relays) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.bind((RESOLVER, 53))
        thread = _answer_names(resolver, lambda query: query[:2] + b"answered")
        try:
            relay = await relays(inside, resolvers=(RESOLVER,))
            assert await inside.run(ASK) == repr(b"\x12\x34answered")
            assert await _eventually(lambda: relay.statistics().queries == 1)
        finally:
            resolver.sendto(b"end", (RESOLVER, 53))
            thread.join()


async def test_a_query_no_resolver_answers_fails_at_once(inside: Namespace, relays) -> None:
    await relays(inside, resolvers=(RESOLVER,))
    failure = b"\x12\x34\x81\x82\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"
    assert await inside.run(ASK) == repr(failure)


async def test_a_name_query_over_tcp_reaches_the_resolver(inside: Namespace, relays) -> None:
    with socket.create_server((RESOLVER, 53)) as resolver:
        await relays(inside, resolvers=(RESOLVER,))
        running = asyncio.create_task(inside.run("c = dial('169.254.100.2', 53); c.sendall(b'q'); print(c.recv(9))"))
        resolver.settimeout(20)
        connection, _ = await asyncio.to_thread(resolver.accept)
        with connection:
            connection.settimeout(20)
            assert await asyncio.to_thread(connection.recv, 1) == b"q"
            connection.sendall(b"r")
        assert await running == "b'r'"


async def test_a_killed_relay_is_started_again_and_serves_the_same_sandboxes(
    inside: Namespace, serve: Serve, relays
) -> None:
    port = serve(_hello)
    relay = await relays(inside, port)
    first = relay.process_id
    os.kill(first, signal.SIGKILL)
    assert await _eventually(lambda: relay.process_id not in (None, first) and relay.statistics().running)
    assert relay.statistics().restarts == 1
    code = f"import urllib.request; print(urllib.request.urlopen('http://169.254.100.2:{port}/').read())"
    assert await inside.run(code) == "b'hello'"


async def test_the_relay_has_given_up_root_and_ends_with_its_server(inside: Namespace) -> None:
    code = """
        import asyncio
        from torpor.sandbox.linux.egress import EgressPolicy, EgressRelay
        async def main():
            relay = EgressRelay(EgressPolicy())
            await relay.start()
            print(relay.process_id, flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
        """
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", textwrap.dedent(code), stdout=subprocess.PIPE)
    assert server.stdout is not None
    pid = int(await server.stdout.readline())
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    assert status["Uid"].split() == ["65534"] * 4
    assert int(status["CapEff"], 16) == 0
    server.kill()
    await server.wait()
    await server.communicate()
    assert await _eventually(lambda: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_closing_ends_the_process_and_every_descriptor(inside: Namespace) -> None:
    relay = EgressRelay(EgressPolicy())
    await relay.start()
    relay.attach("a", inside.tcp, inside.dns)
    pid = relay.process_id
    await relay.close()
    await relay.close()
    assert relay.process_id is None and not os.path.exists(f"/proc/{pid}")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(inside.tcp)


async def test_a_relay_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_module.sys, "executable", "/bin/false")
    with pytest.raises(SandboxUnavailable, match="ended at once"):
        await EgressRelay(EgressPolicy()).start()
