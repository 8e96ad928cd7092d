"""Requests served before their body is complete, and changes of protocol, on plain asyncio and on uvloop."""

import asyncio
import json
import socket
from collections.abc import Callable

import pytest
from tests.support.raw_http import Peer, on_each_loop
from tests.support.serving import serving, until

from torpor.transport import Exchange, Headers, HttpLimits, Tunnel

MEGABYTE = 1 << 20
LARGE = b"POST /up HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /up HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET /get HTTP/1.1\r\n\r\n"


def always(method: str, path: str, headers: Headers) -> bool:
    return True


class Taking:
    """Takes bodies as they come and answers with their size; what was told is kept."""

    def __init__(self, *, pumps: bool = True, answers: bool = True) -> None:
        self.pumps, self.answers = pumps, answers
        self.exchanges: list[Exchange] = []
        self.body = bytearray()
        self.size = 0
        self.ends: list[bool] = []
        self.lost = 0
        self.on_piece: Callable[[bytes], None] | None = None

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.on_disconnect = self._lose
        if exchange.source is None:
            exchange.reply(200, (("X-Whole", "1"),), exchange.body)
            return
        self._write(exchange.body)
        if self.pumps:
            exchange.source.pump(self._write, self._end)

    def _write(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size < MEGABYTE:
            self.body += piece
        if self.on_piece is not None:
            self.on_piece(piece)

    def _end(self, whole: bool) -> None:
        self.ends.append(whole)
        if whole and self.answers:
            self.exchanges[-1].reply(200, (), b"%d" % self.size)

    def _lose(self) -> None:
        self.lost += 1


@on_each_loop
async def test_body_goes_on_while_it_arrives_and_the_connection_serves_again() -> None:
    for head, pieces in (
        (LARGE % 6, (b"abc", b"def")),
        (CHUNKED, (b"3\r\nab", b"c\r\n3;x=y\r\ndef\r\n", b"0\r\nT: r\r\n\r\n")),
    ):
        taking = Taking()
        async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
            peer.send(head + pieces[0])
            await until(lambda taking=taking: taking.size > 0)
            assert taking.ends == [] and taking.exchanges[0].source is not None
            for piece in pieces[1:]:
                peer.send(piece)
                await asyncio.sleep(0.01)
            assert (await peer.answer()).body == b"6" and taking.body == b"abcdef" and taking.ends == [True]
            peer.send(GET)
            assert (await peer.answer()).headers["x-whole"] == "1"


@on_each_loop
async def test_body_that_comes_with_its_head_is_a_request_like_any_other() -> None:
    taking = Taking()
    async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(LARGE % 3 + b"abc" + CHUNKED + b"3\r\ndef\r\n0\r\n\r\n" + GET)
        assert [(await peer.answer()).body for _ in range(3)] == [b"abc", b"def", b""]
        assert all(exchange.source is None for exchange in taking.exchanges)


@on_each_loop
async def test_only_requests_that_are_wanted_so_are_streamed_and_free_of_the_body_limit() -> None:
    asked: list[tuple[str, str, str]] = []

    def streams(method: str, path: str, headers: Headers) -> bool:
        asked.append((method, path, headers.get("content-length")))
        return path == "/up"

    taking = Taking()
    async with serving(taking, streams=streams, limits=HttpLimits(body_bytes=100)) as server:
        async with await Peer.connect(server.port) as peer:
            peer.send(GET + LARGE.replace(b"/up", b"/up?q") % 200_000 + b"x" * 200_000)
            assert [(await peer.answer()).body for _ in range(2)] == [b"", b"200000"]
            peer.send(LARGE.replace(b"/up", b"/else") % 101)
            assert (await peer.answer()).status == 413
        assert asked == [("POST", "/up", "200000"), ("POST", "/else", "101")]


@on_each_loop
async def test_fifty_megabytes_arrive_at_a_slow_application_while_little_is_kept() -> None:
    total = 50 * MEGABYTE
    for head in (LARGE % total, CHUNKED):
        taking = Taking()
        sent = ahead = 0

        def slow(piece: bytes, taking: Taking = taking) -> None:
            nonlocal ahead
            assert len(piece) <= 16384
            ahead = max(ahead, sent - taking.size)  # noqa: B023
            source = taking.exchanges[0].source
            if source is not None and taking.size % (4 * MEGABYTE) < len(piece):
                source.pause()
                asyncio.get_running_loop().call_later(0.01, source.resume)

        taking.on_piece = slow
        async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
            peer.send(head)
            while sent < total:
                piece = b"x" * MEGABYTE
                peer.send(piece if head is not CHUNKED else b"%x\r\n%b\r\n" % (MEGABYTE, piece))
                sent += MEGABYTE
                await peer.writer.drain()
            peer.send(b"0\r\n\r\n" if head is CHUNKED else b"")
            assert (await peer.answer()).body == b"%d" % total and taking.size == total
            assert ahead < 20 * MEGABYTE


@on_each_loop
async def test_body_that_nobody_takes_is_not_read_and_outlives_every_timeout() -> None:
    taking = Taking(pumps=False)
    short = HttpLimits(body_timeout=0.05, head_timeout=0.05, idle_timeout=0.05, write_timeout=0.05)
    async with serving(taking, streams=always, limits=short) as server, await Peer.connect(server.port) as peer:
        peer.send(LARGE % (30 * MEGABYTE) + b"x" * (30 * MEGABYTE))
        await asyncio.sleep(0.7)
        assert taking.size <= 16384 and peer.writer.transport.get_write_buffer_size() > 10 * MEGABYTE
        assert taking.lost == 0
        source = taking.exchanges[0].source
        assert source is not None
        source.pump(taking._write, taking._end)
        assert (await peer.answer()).body == b"%d" % (30 * MEGABYTE)


@on_each_loop
async def test_leave_to_send_is_given_when_the_body_is_wanted() -> None:
    taking = Taking(pumps=False)
    async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        await until(lambda: len(taking.exchanges) == 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await peer.reader.read(1)
        source = taking.exchanges[0].source
        assert source is not None
        source.pump(taking._write, taking._end)
        assert (await peer.answer()).status == 100
        peer.send(b"abc")
        assert (await peer.answer()).body == b"3"


@on_each_loop
async def test_answer_without_leave_given_ends_the_connection() -> None:
    async with serving(whole, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        answer = await peer.answer()
        assert answer.status == 413 and answer.headers["connection"] == "close" and await peer.ended()


def begin(exchange: Exchange) -> None:
    exchange.begin(413, (), 3)
    exchange.write(b"abc")
    exchange.finish()


def whole(exchange: Exchange) -> None:
    exchange.reply(413, (), b"abc")


@on_each_loop
async def test_early_answer_reaches_a_client_that_sends_all_before_reading() -> None:
    def all_at_once(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(LARGE % (20 * MEGABYTE) + b"x" * (20 * MEGABYTE))
            pieces = []
            while piece := client.recv(65536):
                pieces.append(piece)
            return b"".join(pieces)

    for app in (whole, begin):
        async with serving(app, streams=always) as server:
            raw = await asyncio.to_thread(all_at_once, server.port)
            assert raw.startswith(b"HTTP/1.1 413 ") and raw.endswith(b"\r\n\r\nabc") and raw.count(b"HTTP/1.1") == 1


@on_each_loop
async def test_small_rest_of_a_body_is_dropped_and_the_connection_goes_on() -> None:
    for app in (whole, begin):
        for head, rest in ((LARGE % 1000, b"x" * 999), (CHUNKED, b"3e6\r\n" + b"x" * 998 + b"\r\n0\r\n\r\n")):
            async with serving(app, streams=always) as server, await Peer.connect(server.port) as peer:
                peer.send(head + (b"x" if head is not CHUNKED else b""))
                assert (await peer.answer()).body == b"abc"
                peer.send(rest[:500])
                await asyncio.sleep(0.01)
                peer.send(rest[500:] + GET)
                assert (await peer.answer()).body == b"abc" and server.statistics().requests == 2


@on_each_loop
async def test_large_rest_of_a_body_is_never_taken_for_a_request() -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\n\r\n" * 20_000
    for app in (whole, begin):
        for head in (LARGE % len(smuggled), CHUNKED + b"%x\r\n" % len(smuggled)):
            async with serving(app, streams=always) as server, await Peer.connect(server.port) as peer:
                peer.send(head)
                assert (await peer.answer()).body == b"abc"
                peer.send(smuggled)
                assert await peer.ended() and server.statistics().requests == 1


@on_each_loop
async def test_rest_that_is_broken_or_does_not_come_ends_the_connection_without_a_word() -> None:
    async with serving(whole, streams=always, limits=HttpLimits(body_timeout=0.1)) as server:
        for rest in (b"zz\r\n", b""):
            async with await Peer.connect(server.port) as peer:
                peer.send(CHUNKED)
                assert (await peer.answer()).body == b"abc"
                peer.send(rest)
                assert await peer.ended()


@on_each_loop
async def test_application_may_answer_from_within_a_piece() -> None:
    taking = Taking()
    taking.on_piece = lambda _: taking.size >= 20_000 and taking.exchanges[-1].reply(413) and None
    async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(LARGE % MEGABYTE + b"x" * MEGABYTE)
        assert (await peer.answer()).status == 413 and await peer.ended()
        assert taking.size < 50_000 and taking.ends == [] and taking.lost == 0


@on_each_loop
async def test_client_that_goes_away_within_its_body_is_told_of() -> None:
    for leave in (lambda p: p.vanish(), lambda p: p.writer.write_eof(), lambda p: p.writer.close()):
        taking = Taking()
        async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
            peer.send(LARGE % 1000 + b"abc")
            await until(lambda taking=taking: taking.size == 3)
            leave(peer)
            await until(lambda taking=taking: taking.ends == [False])
            assert taking.lost == 1 and taking.exchanges[0].closed
            late: list[bool] = []
            source = taking.exchanges[0].source
            assert source is not None
            source.resume()
            source.pump(taking._write, late.append)
            assert late == [False]


@on_each_loop
async def test_body_that_is_none_loses_the_exchange_and_is_refused() -> None:
    taking = Taking()
    async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(CHUNKED + b"3\r\nabc\r\n")
        await until(lambda: taking.size == 3)
        peer.send(b"zz\r\n")
        assert (await peer.answer()).status == 400 and await peer.ended()
        assert taking.ends == [False] and taking.lost == 1


@on_each_loop
async def test_body_that_is_none_breaks_an_answer_already_begun() -> None:
    taking = Taking(answers=False)
    async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(CHUNKED + b"3\r\nabc\r\n")
        await until(lambda: taking.size == 3)
        taking.exchanges[0].begin(200)
        taking.exchanges[0].write(b"abc")
        await peer.reader.readuntil(b"3\r\nabc\r\n")
        peer.send(b"zz\r\n")
        assert await peer.ended() and taking.ends == [False] and taking.lost == 1


@on_each_loop
async def test_body_that_falls_silent_while_it_is_wanted_is_refused() -> None:
    for limits in (HttpLimits(body_timeout=0.1), HttpLimits(stream_timeout=0.1)):
        taking = Taking()
        async with serving(taking, streams=always, limits=limits) as server, await Peer.connect(server.port) as peer:
            peer.send(LARGE % 1000 + b"abc")
            assert (await peer.answer()).status == 408 and taking.ends == [False] and taking.lost == 1
            assert server.statistics().timeouts == 1


@on_each_loop
async def test_streamed_body_may_be_silent_for_longer_than_another() -> None:
    taking = Taking()
    limits = HttpLimits(body_timeout=0.05, stream_timeout=60.0)
    async with serving(taking, streams=always, limits=limits) as server, await Peer.connect(server.port) as peer:
        peer.send(LARGE % 6 + b"abc")
        await asyncio.sleep(0.4)
        peer.send(b"def")
        assert (await peer.answer()).body == b"6"


@on_each_loop
async def test_time_outs_of_a_body_end_with_it() -> None:
    taking = Taking(answers=False)
    limits = HttpLimits(body_timeout=0.1)
    async with serving(taking, streams=always, limits=limits) as server, await Peer.connect(server.port) as peer:
        peer.send(LARGE % 6 + b"abc")
        await until(lambda: taking.size == 3)
        taking.exchanges[0].begin(200)
        await asyncio.sleep(0.5)
        peer.send(b"def")
        await until(lambda: taking.ends == [True])
        await asyncio.sleep(0.5)
        taking.exchanges[0].write(b"abc")
        taking.exchanges[0].finish()
        await peer.reader.readuntil(b"0\r\n\r\n")
        peer.send(LARGE % 3 + b"a")
        await until(lambda: len(taking.exchanges) == 2)
        peer.send(b"bc")
        await until(lambda: taking.ends == [True, True])
        await asyncio.sleep(0.5)
        assert taking.exchanges[1].reply(200) and (await peer.answer()).status == 200
        assert server.statistics().timeouts == 0


@on_each_loop
async def test_body_and_answer_may_go_on_at_once() -> None:
    def app(exchange: Exchange) -> None:
        exchange.begin(200)
        source = exchange.source
        assert source is not None
        exchange.on_writable = source.resume
        source.pump(lambda piece: None if exchange.write(piece) else source.pause(), lambda _: exchange.finish())

    total = 20 * MEGABYTE
    async with serving(app, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(LARGE % total)
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.send(b"x" * total)
        await asyncio.sleep(0.2)
        assert peer.writer.transport.get_write_buffer_size() > 0
        got = 0
        while size := int(await peer.reader.readline(), 16):
            got += len(await peer.reader.readexactly(size))
            await peer.reader.readexactly(2)
        assert got == total


@on_each_loop
async def test_pipelined_uploads_are_served_in_turn() -> None:
    taking = Taking()
    async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(b"".join((LARGE % 40_000 + b"x" * 40_000 + GET) for _ in range(20)))
        for number in range(1, 21):
            assert (await peer.answer()).body == b"%d" % (40_000 * number)
            assert (await peer.answer()).status == 200


@on_each_loop
async def test_application_that_fails_within_a_piece_gives_500() -> None:
    def fail(piece: bytes) -> None:
        if len(piece) > 3:
            raise ZeroDivisionError("as the test wants")

    taking = Taking()
    taking.on_piece = fail
    async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(LARGE % 1000 + b"abc")
        await until(lambda: taking.size == 3)
        peer.send(b"x" * 997 + GET)
        answer = await peer.answer()
        assert answer.status == 500 and b"message" in json.dumps(json.loads(answer.body)).encode()
        assert (await peer.answer()).status == 200


# Changes of protocol.

OFFER = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Switching:
    """Accepts every offer and echoes what comes through."""

    def __init__(self) -> None:
        self.tunnels: list[Tunnel] = []
        self.closed: list[bool] = []
        self.got = bytearray()

    def __call__(self, exchange: Exchange) -> None:
        if not exchange.upgrade:
            exchange.reply(200, (), b"plain")
            return
        assert exchange.upgrade == "websocket" and exchange.source is None
        tunnel = exchange.tunnel(SWITCH)
        assert tunnel is not None and exchange.closed and exchange.tunnel(SWITCH) is None

        def echo(data: bytes) -> None:
            self.got.extend(data)
            if not tunnel.write(data):
                tunnel.pause()

        tunnel.on_data, tunnel.on_end, tunnel.on_writable = echo, tunnel.end, tunnel.resume
        tunnel.on_closed = self.closed.append
        self.tunnels.append(tunnel)
        tunnel.resume()


@on_each_loop
async def test_accepted_offer_hands_over_the_connection_with_what_came_early() -> None:
    early = b"GET /not HTTP/1.1\r\n\r\n" + bytes(range(256)) * 200
    for cut in (len(OFFER), len(OFFER) + 5, len(OFFER + early), 10):
        switching = Switching()
        async with serving(switching, streams=always) as server, await Peer.connect(server.port) as peer:
            data = OFFER + early
            peer.send(data[:cut])
            await asyncio.sleep(0.02)
            peer.send(data[cut:])
            assert await peer.reader.readexactly(len(SWITCH)) == SWITCH
            assert await peer.reader.readexactly(len(early)) == early
            assert server.statistics().in_flight == 1 and server.connections == 1
            peer.writer.write_eof()
            assert await peer.reader.read() == b""
            await until(
                lambda switching=switching, server=server: switching.closed == [True] and not server.connections
            )


@on_each_loop
async def test_tunnel_with_a_reader_that_stops_stops_reading_itself() -> None:
    switching = Switching()
    async with serving(switching, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(OFFER + b"x" * (40 * MEGABYTE))
        await asyncio.sleep(0.3)
        held = len(switching.got)
        await asyncio.sleep(0.1)
        assert len(switching.got) == held < 30 * MEGABYTE
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await peer.reader.readexactly(len(SWITCH) + 40 * MEGABYTE)) > 40 * MEGABYTE


@on_each_loop
async def test_declined_offer_is_an_answer_like_any_other() -> None:
    def app(exchange: Exchange) -> None:
        exchange.reply(200, (), exchange.upgrade.encode() + exchange.path.encode())

    async with serving(app, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(OFFER + GET)
        assert [(await peer.answer()).body for _ in range(2)] == [b"websocket/ws", b"/get"]
        for offer in (
            OFFER.replace(b"1.1", b"1.0"),
            OFFER.replace(b"Host: x", b"Content-Length: 2").replace(b"\r\n\r\n", b"\r\n\r\nab"),
        ):
            async with await Peer.connect(server.port) as other:
                other.send(offer)
                assert (await other.answer()).body == b"/ws"
    async with serving(app) as server, await Peer.connect(server.port) as peer:
        peer.send(OFFER)
        assert (await peer.answer()).body == b"/ws"


@on_each_loop
async def test_tunnel_is_closed_with_its_server_and_hears_of_a_peer_that_vanishes() -> None:
    for vanishes in (True, False):
        switching = Switching()
        async with serving(switching, streams=always) as server, await Peer.connect(server.port) as peer:
            peer.send(OFFER)
            await peer.reader.readexactly(len(SWITCH))
            if vanishes:
                peer.vanish()
            else:
                server.close()
            await until(lambda switching=switching: len(switching.closed) == 1)
            assert switching.tunnels[0].closed and switching.tunnels[0].write(b"x") is False
            await until(lambda server=server: server.connections == 0)


@on_each_loop
async def test_exchange_without_an_offer_has_no_tunnel() -> None:
    def app(exchange: Exchange) -> None:
        with pytest.raises(RuntimeError):
            exchange.tunnel(SWITCH)
        exchange.reply(200)

    async with serving(app, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(GET)
        assert (await peer.answer()).status == 200
