"""Answers sent piece by piece over real sockets, on plain asyncio and on uvloop."""

import asyncio
import http.client
import socket
from collections.abc import Callable

import pytest
from tests.support.raw_http import Peer, on_each_loop
from tests.support.serving import serving, until
from tests.support.threads import blocking, fetch

from torpor.transport import Exchange, HttpLimits

GET = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
BROKEN = (http.client.IncompleteRead, ConnectionResetError)
MEGABYTE = 1 << 20


def pieces_of(*pieces: bytes, length: int | None = None, status: int = 200) -> Callable[[Exchange], None]:
    """An application that answers in these pieces at once."""

    def app(exchange: Exchange) -> None:
        assert exchange.begin(status, (("X-A", "1"),), length) and not exchange.closed
        for piece in pieces:
            exchange.write(piece)
        exchange.finish()
        assert exchange.closed

    return app


class Pouring:
    """Answers with `total` bytes as fast as the peer reads, and remembers how often it had to wait."""

    def __init__(self, total: int, *, length: bool = False, piece: int = 64 * 1024) -> None:
        self.left, self._piece, self._length = total, b"x" * piece, total if length else None
        self.waits = 0
        self.ended = self.disconnected = False
        self.exchange: Exchange | None = None

    def __call__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.on_writable, exchange.on_disconnect = self._pour, self._disconnect
        exchange.begin(200, (), self._length)
        self._pour()

    def _pour(self) -> None:
        assert self.exchange is not None
        while self.left > 0:
            piece = self._piece[: self.left]
            self.left -= len(piece)
            if not self.exchange.write(piece) and self.left:
                self.waits += 1
                return
        self.ended = True
        self.exchange.finish()

    def _disconnect(self) -> None:
        self.disconnected = True


@on_each_loop
async def test_answer_of_known_length_comes_as_one_that_is_given_whole() -> None:
    async with serving(pieces_of(b"ab", b"cde", length=5)) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"" * 2)
        for _ in range(2):
            answer = await peer.answer()
            assert (answer.status, answer.body, answer.headers["x-a"]) == (200, b"abcde", "1")
            assert "transfer-encoding" not in answer.headers and "date" in answer.headers


@on_each_loop
async def test_answer_of_unknown_length_is_chunked_and_the_connection_goes_on() -> None:
    async with serving(pieces_of(b"ab", b"", b"c" * 20)) as server, await Peer.connect(server.port) as peer:
        for _ in range(2):
            peer.send(GET % b"")
            head = await peer.reader.readuntil(b"\r\n\r\n")
            assert b"Transfer-Encoding: chunked\r\n" in head and b"Content-Length" not in head
            assert await peer.reader.readexactly(38) == b"2\r\nab\r\n14\r\n" + b"c" * 20 + b"\r\n0\r\n\r\n"


@on_each_loop
async def test_framing_fields_of_a_begun_answer_are_the_servers_own() -> None:
    def app(exchange: Exchange) -> None:
        fields = [("content-length", "9"), ("Transfer-Encoding", "gzip"), ("Connection", "close"), ("Date", "then")]
        exchange.begin(200, [*fields, ("Keep-Alive", "1"), ("A", "b\r\nC: d")], 1)
        exchange.write(b"x")
        exchange.finish()

    async with serving(app) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"")
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head == b"HTTP/1.1 200 OK\r\nDate: then\r\nA: b  C: d\r\nContent-Length: 1\r\n\r\n"


@on_each_loop
async def test_head_reaches_the_peer_before_any_body_and_each_piece_as_it_is_written() -> None:
    begun: list[Exchange] = []

    def app(exchange: Exchange) -> None:
        exchange.begin(200)
        begun.append(exchange)

    async with serving(app) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"")
        assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        for text in (b"one", b"two"):
            assert begun[0].write(text)
            assert await peer.reader.readexactly(8) == b"3\r\n" + text + b"\r\n"
        assert begun[0].reply(500) is False and begun[0].begin(500) is False
        begun[0].finish()
        assert await peer.reader.readexactly(5) == b"0\r\n\r\n"
        assert begun[0].closed and begun[0].write(b"late") is False
        begun[0].finish()
        begun[0].abort()
        peer.send(GET % b"")
        assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


@on_each_loop
async def test_client_of_http10_gets_an_unknown_length_until_the_connection_ends() -> None:
    async with serving(pieces_of(b"ab", b"cde")) as server, await Peer.connect(server.port) as peer:
        peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        head, _, body = (await peer.reader.read()).partition(b"\r\n\r\n")
        assert b"Connection: close" in head and b"chunked" not in head and body == b"abcde"


@on_each_loop
async def test_client_of_http10_keeps_its_connection_if_the_length_is_known() -> None:
    async with serving(pieces_of(b"abc", length=3)) as server, await Peer.connect(server.port) as peer:
        for _ in range(2):
            peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = await peer.answer()
            assert answer.body == b"abc" and answer.headers["connection"] == "keep-alive"


@on_each_loop
async def test_answers_without_a_body_drop_what_is_written() -> None:
    async def ask(app: Callable[[Exchange], None], request: bytes) -> bytes:
        async with serving(app) as server, await Peer.connect(server.port) as peer:
            peer.send(request + GET % b"end" + b"nonsense\r\n\r\n")
            return await peer.reader.read()

    head = b"HEAD / HTTP/1.1\r\n\r\n"
    given = await ask(pieces_of(b"abc", length=3), head)
    assert given.count(b"HTTP/1.1 200") == 2 and given.count(b"abc") == 1 and given.count(b"Content-Length: 3\r\n") == 2
    given = await ask(pieces_of(b"abc"), head)
    assert given.count(b"HTTP/1.1 200") == 2 and given.count(b"3\r\nabc\r\n0\r\n\r\n") == 1
    for status in (204, 304):
        given = await ask(pieces_of(b"abc", status=status, length=3), GET % b"")
        assert given.count(b"HTTP/1.1 %d " % status) == 2 and b"abc" not in given
        assert b"chunked" not in given and given.count(b"Content-Length") == 1


@on_each_loop
async def test_aborted_answer_never_looks_complete() -> None:
    def app(exchange: Exchange) -> None:
        exchange.begin(200, (), {"/length": 6, "/whole": 3}.get(exchange.path))
        exchange.write(b"abc")
        if exchange.query == "early":
            exchange.abort()
        elif exchange.query == "later":
            asyncio.get_running_loop().call_later(0.02, exchange.abort)
        elif exchange.query == "raise":
            raise RuntimeError("as the test wants")
        else:
            exchange.finish()

    async with serving(app) as server:
        for path in ("/length", "/whole", "/chunked"):
            for how in ("early", "later"):
                with pytest.raises((*BROKEN, http.client.RemoteDisconnected)):
                    await blocking(lambda path=path, how=how: fetch(server.port, "GET", f"{path}?{how}"))
        with pytest.raises(BROKEN):
            await blocking(lambda: fetch(server.port, "GET", "/length?finish"))
        assert (await blocking(lambda: fetch(server.port, "GET", "/whole?finish")))[2] == b"abc"
        for how in (b"early", b"later"):
            with pytest.raises(ConnectionResetError):
                await until_closed(server.port, b"GET /?" + how + b" HTTP/1.0\r\n\r\n")


async def until_closed(port: int, request: bytes) -> bytes:
    async with await Peer.connect(port) as peer:
        peer.send(request)
        return await peer.reader.read()


@on_each_loop
async def test_more_than_the_announced_length_breaks_the_answer_off() -> None:
    def app(exchange: Exchange) -> None:
        exchange.begin(200, (), 4)
        exchange.write(b"abc")
        assert exchange.write(b"de") is False and exchange.closed

    async with serving(app) as server:
        with pytest.raises((*BROKEN, http.client.RemoteDisconnected)):
            await blocking(lambda: fetch(server.port))


@on_each_loop
async def test_server_that_closes_breaks_answers_off_that_were_begun() -> None:
    lost: list[int] = []

    def app(exchange: Exchange) -> None:
        exchange.on_disconnect = lambda: lost.append(1)
        exchange.begin(200)
        exchange.write(b"abc")

    async with serving(app) as server, await Peer.connect(server.port) as peer:
        peer.send(b"GET / HTTP/1.0\r\n\r\n")
        await peer.reader.readuntil(b"abc")
        server.close()
        with pytest.raises(ConnectionResetError):
            await peer.reader.read()
        assert lost == [1]


@on_each_loop
async def test_what_was_sent_just_before_an_abort_arrives() -> None:
    def app(exchange: Exchange) -> None:
        exchange.begin(200)
        exchange.write(b"abc")
        exchange.abort()

    async with serving(app) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"")
        given = await peer.reader.read()
        assert given.startswith(b"HTTP/1.1 200 ") and given.endswith(b"\r\n\r\n3\r\nabc\r\n")


WHOLE_HEADS = (
    (b"HEAD", 200, 3, b""),
    (b"HEAD", 200, None, b""),
    (b"GET", 204, None, b""),
    (b"GET", 304, 3, b""),
    (b"GET", 200, 0, b""),
    (b"GET", 200, 0, b"x"),
)


@on_each_loop
async def test_head_that_would_be_the_whole_answer_does_not_leave_just_before_an_abort() -> None:
    for method, status, length, body in WHOLE_HEADS:

        def app(exchange: Exchange, status: int = status, length: int | None = length, body: bytes = body) -> None:
            exchange.begin(status, (), length)
            exchange.write(body)
            exchange.abort()

        async with serving(app) as server, await Peer.connect(server.port) as peer:
            peer.send(method + b" / HTTP/1.1\r\n\r\n")
            assert await peer.reader.read() == b"", (method, status, length, body)


@on_each_loop
async def test_abort_of_an_exchange_not_begun_closes_without_an_answer() -> None:
    async with serving(Exchange.abort) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"")
        assert await peer.ended()


@on_each_loop
async def test_fifty_megabytes_reach_a_reader_whole() -> None:
    for length in (True, False):
        pouring = Pouring(50 * MEGABYTE, length=length)
        async with serving(pouring) as server:
            _, headers, body = await blocking(lambda port=server.port: fetch(port))
            assert len(body) == 50 * MEGABYTE and ("content-length" in headers) is length


@on_each_loop
async def test_fifty_megabytes_reach_a_reader_that_begins_once_the_server_waits_for_it() -> None:
    pouring = Pouring(50 * MEGABYTE, length=True)
    async with serving(pouring) as server, await Peer.connect(server.port) as peer:
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(GET % b"")
        await until(lambda: pouring.waits > 0)
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        answer = await peer.answer()

    assert answer.body == b"x" * (50 * MEGABYTE)
    assert pouring.ended


@on_each_loop
async def test_reader_that_stops_bounds_what_is_written() -> None:
    pouring = Pouring(50 * MEGABYTE)
    async with serving(pouring) as server, await Peer.connect(server.port) as peer:
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(GET % b"")
        await until(lambda: pouring.waits > 0)
        await asyncio.sleep(0.05)
        assert pouring.left > 40 * MEGABYTE and not pouring.ended
        peer.vanish()
        await until(lambda: pouring.disconnected)
        assert pouring.exchange is not None and pouring.exchange.closed and pouring.exchange.write(b"x") is False


@on_each_loop
async def test_reader_that_reads_nothing_is_dropped_and_one_that_reads_slowly_is_not() -> None:
    limits = HttpLimits(write_timeout=0.3)
    pouring = Pouring(20 * MEGABYTE)
    async with serving(pouring, limits=limits) as server, await Peer.connect(server.port) as peer:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(GET % b"")
        await until(lambda: pouring.disconnected)
        assert server.statistics().timeouts == 1
    slowly = Pouring(12 * MEGABYTE)
    async with serving(slowly, limits=limits) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"")
        seen = 0
        while not slowly.ended:
            seen += len(await peer.reader.read(400_000))
            await asyncio.sleep(0.02)
        assert server.statistics().timeouts == 0 and not slowly.disconnected


@on_each_loop
async def test_silent_answer_outlives_every_timeout_and_hears_of_a_disconnect() -> None:
    lost: list[Exchange] = []

    def app(exchange: Exchange) -> None:
        exchange.on_disconnect = lambda: lost.append(exchange)
        exchange.begin(200)
        exchange.write(b"data: 1\n\n")

    short = HttpLimits(head_timeout=0.05, body_timeout=0.05, idle_timeout=0.05, write_timeout=0.05)
    async with serving(app, limits=short) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"")
        await peer.reader.readuntil(b"1\n\n\r\n")
        await asyncio.sleep(0.6)
        assert lost == [] and server.statistics().in_flight == 1
        peer.vanish()
        await until(lambda: bool(lost))


@on_each_loop
async def test_pipelined_requests_are_streamed_in_order() -> None:
    def app(exchange: Exchange) -> None:
        exchange.begin(200, (), len(exchange.path))
        asyncio.get_running_loop().call_soon(lambda: (exchange.write(exchange.path.encode()), exchange.finish()))

    async with serving(app) as server, await Peer.connect(server.port) as peer:
        peer.send(b"".join(GET % b"%d" % number for number in range(300)))
        for number in range(300):
            assert (await peer.answer()).body == b"/%d" % number
