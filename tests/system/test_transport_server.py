"""The HTTP server over real sockets, on plain asyncio and on uvloop."""

import asyncio
import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Sequence

import pytest
from tests.support.raw_http import Peer, on_each_loop
from tests.support.serving import serving

from torpor.model.errors import PlatformError
from torpor.transport import Exchange, HttpLimits, listen

GET = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body: bytes, *fields: bytes, path: bytes = b"/") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def echo(exchange: Exchange) -> None:
    exchange.reply(200, (("X-Path", exchange.path),), exchange.body)


def abc(exchange: Exchange) -> None:
    exchange.reply(200, (), b"abc")


class Parking:
    """An application that keeps every exchange."""

    def __init__(self) -> None:
        self.kept: list[Exchange] = []
        self.lost: list[Exchange] = []
        self._changed = asyncio.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.on_disconnect = lambda: self._lose(exchange)
        self.kept.append(exchange)
        self._changed.set()

    def _lose(self, exchange: Exchange) -> None:
        self.lost.append(exchange)
        self._changed.set()

    async def wait_for(self, *, kept: int = 0, lost: int = 0) -> None:
        while len(self.kept) < kept or len(self.lost) < lost:
            self._changed.clear()
            await self._changed.wait()


@on_each_loop
async def test_requests_on_one_connection_are_answered_in_turn() -> None:
    async with serving(echo) as server, await Peer.connect(server.port) as peer:
        for number in range(5):
            peer.send(post(b"%d" % number, path=b"/p%d" % number))
            answer = await peer.answer()
            assert (answer.status, answer.body) == (200, b"%d" % number)
            assert answer.headers["x-path"] == f"/p{number}"
        assert server.statistics().requests == 5 and server.connections == 1


@on_each_loop
async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(echo) as server, await Peer.connect(server.port) as peer:
        peer.send(b"".join(post(b"%d" % number) for number in range(3000)))
        for number in range(3000):
            assert (await peer.answer()).body == b"%d" % number


@on_each_loop
async def test_pipelined_requests_behind_a_parked_one_wait_for_it() -> None:
    parking = Parking()
    async with serving(parking) as server, await Peer.connect(server.port) as peer:
        peer.send(post(b"1") + post(b"2") + post(b"3"))
        for number in range(1, 4):
            await parking.wait_for(kept=number)
            await asyncio.sleep(0.01)
            assert len(parking.kept) == number and server.statistics().in_flight == 1
            assert parking.kept[-1].reply(200, (), b"answer " + parking.kept[-1].body)
            assert (await peer.answer()).body == b"answer %d" % number


@on_each_loop
async def test_far_more_pipelined_than_allowed_stops_being_read_and_is_still_answered() -> None:
    parking = Parking()
    limits = HttpLimits(pipelined_bytes=1000)
    body, count = b"x" * 50_000, 200
    async with serving(parking, limits=limits) as server, await Peer.connect(server.port) as peer:
        peer.send(post(body) * count)
        await parking.wait_for(kept=1)
        await asyncio.sleep(0.05)
        assert peer.writer.transport.get_write_buffer_size() > 1_000_000
        for number in range(count):
            await parking.wait_for(kept=number + 1)
            parking.kept[number].reply(200, (), b"%d" % len(parking.kept[number].body))
            assert (await peer.answer()).body == b"50000"


@on_each_loop
async def test_exchange_answered_later_reaches_the_peer_and_only_once() -> None:
    parking = Parking()
    async with serving(parking) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"next")
        await parking.wait_for(kept=1)
        (exchange,) = parking.kept
        assert not exchange.closed and exchange.peer == "127.0.0.1"
        assert exchange.reply(202, (), b"late") is True
        assert exchange.reply(500, (), b"again") is False and exchange.closed
        assert (await peer.answer()).status == 202
        peer.send(GET % b"more")
        await parking.wait_for(kept=2)
        assert parking.lost == []


@on_each_loop
async def test_two_hundred_parked_exchanges_are_each_answered_with_their_own() -> None:
    parking = Parking()
    async with serving(parking) as server:
        peers = [await Peer.connect(server.port) for _ in range(200)]
        for number, peer in enumerate(peers):
            peer.send(GET % b"%d" % number)
        await parking.wait_for(kept=200)
        assert server.statistics().in_flight == 200
        for exchange in reversed(parking.kept):
            assert exchange.reply(200, (), exchange.path.encode())
        for number, peer in enumerate(peers):
            assert (await peer.answer()).body == b"/%d" % number
            peer.vanish()


@on_each_loop
async def test_parked_exchange_outlives_every_timeout() -> None:
    parking = Parking()
    short = HttpLimits(head_timeout=0.05, body_timeout=0.05, idle_timeout=0.05, write_timeout=0.05)
    async with serving(parking, limits=short) as server, await Peer.connect(server.port) as peer:
        peer.send(post(b"abc"))
        await parking.wait_for(kept=1)
        await asyncio.sleep(0.7)
        assert parking.kept[0].reply(200)
        assert (await peer.answer()).status == 200


@on_each_loop
async def test_peer_that_vanishes_is_told_of_and_later_answers_are_calm() -> None:
    parking = Parking()
    async with serving(parking) as server:
        for vanish in (
            lambda peer: peer.vanish(),
            lambda peer: peer.writer.close(),
            lambda peer: peer.writer.write_eof(),
        ):
            parking.__init__()  # type: ignore[misc]
            async with await Peer.connect(server.port) as peer:
                peer.send(GET % b"next")
                await parking.wait_for(kept=1)
                vanish(peer)
                await parking.wait_for(lost=1)
                (exchange,) = parking.kept
                assert exchange.closed and exchange.reply(200) is False and len(parking.lost) == 1


@on_each_loop
async def test_peer_that_vanishes_with_requests_waiting_serves_none_of_them() -> None:
    parking = Parking()
    async with serving(parking) as server:
        async with await Peer.connect(server.port) as peer:
            peer.send(post(b"1") + post(b"2"))
            await parking.wait_for(kept=1)
        await parking.wait_for(lost=1)
        await asyncio.sleep(0.02)
        assert len(parking.kept) == 1 and server.connections == 0


@on_each_loop
async def test_head_request_gets_length_without_body() -> None:
    async with serving(abc) as server, await Peer.connect(server.port) as peer:
        peer.send(b"HEAD / HTTP/1.1\r\n\r\n" + GET % b"")
        assert (await peer.answer(bodiless=True)).headers["content-length"] == "3"
        assert (await peer.answer()).body == b"abc"


@on_each_loop
async def test_connection_close_and_http10_end_the_connection_after_the_answer() -> None:
    async with serving(echo) as server:
        for request, kept in (
            (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
            (b"GET / HTTP/1.0\r\n\r\n", False),
            (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        ):
            async with await Peer.connect(server.port) as peer:
                peer.send(request)
                answer = await peer.answer()
                assert answer.headers["connection"] == ("keep-alive" if kept else "close")
                if kept:
                    peer.send(GET % b"again")
                    await peer.answer()
                else:
                    assert await peer.ended()


@on_each_loop
async def test_announced_body_gets_leave_to_come() -> None:
    async with serving(echo) as server, await Peer.connect(server.port) as peer:
        peer.send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert (await peer.answer()).status == 100
        peer.send(b"abc")
        assert (await peer.answer()).body == b"abc"


@on_each_loop
async def test_leave_waits_for_the_answer_before_it() -> None:
    parking = Parking()
    async with serving(parking) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"a" + b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        await parking.wait_for(kept=1)
        await asyncio.sleep(0.02)
        parking.kept[0].reply(200)
        assert [(await peer.answer()).status, (await peer.answer()).status] == [200, 100]
        peer.send(b"abc")
        await parking.wait_for(kept=2)
        assert parking.kept[1].body == b"abc"


@on_each_loop
async def test_body_of_several_megabytes_comes_and_goes_whole() -> None:
    body = os.urandom(6 * 1024 * 1024)
    async with serving(echo) as server, await Peer.connect(server.port) as peer:
        for request in (
            post(body),
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n600000\r\n" + body + b"\r\n0\r\n\r\n",
        ):
            peer.send(request)
            assert (await peer.answer()).body == body


@on_each_loop
async def test_body_too_large_is_answered_before_the_connection_ends() -> None:
    limits = HttpLimits(body_bytes=1000)
    endless = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096
    async with serving(echo, limits=limits) as server:
        for request in (post(b"x" * 5_000_000), post(b"x" * 1001), endless):
            async with await Peer.connect(server.port) as peer:
                peer.send(request)
                answer = await peer.answer()
                assert answer.status == 413 and answer.headers["connection"] == "close"
                assert json.loads(answer.body)["message"] == "The request body is larger than 1000 bytes."
                assert await peer.ended()
        assert server.statistics().refusals == 3 and server.statistics().requests == 0


def refused_through_a_blocking_client(port: int, body: bytes) -> bytes:
    """Send everything first, then read: the way of most client libraries."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(post(body))
        client.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := client.recv(65536):
            pieces.append(piece)
        return b"".join(pieces)


@on_each_loop
async def test_client_that_sends_all_before_reading_still_gets_its_refusal() -> None:
    async with serving(echo, limits=HttpLimits(body_bytes=1000)) as server:
        raw = await asyncio.to_thread(refused_through_a_blocking_client, server.port, b"x" * 20_000_000)
        assert raw.startswith(b"HTTP/1.1 413 ")


@on_each_loop
async def test_error_behind_a_parked_request_is_answered_in_its_turn() -> None:
    parking = Parking()
    async with serving(parking) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"a" + b"nonsense\r\n\r\n")
        await parking.wait_for(kept=1)
        await asyncio.sleep(0.02)
        parking.kept[0].reply(200)
        assert [(await peer.answer()).status, (await peer.answer()).status] == [200, 400]
        assert await peer.ended()


@on_each_loop
async def test_refusal_takes_the_shape_the_face_gives_it() -> None:
    def face(status: int, reason: str) -> tuple[Sequence[tuple[str, str]], bytes]:
        return (("X-Kind", "mine"),), f"{status} {reason[:3]}".encode()

    async with serving(echo, on_error=face) as server, await Peer.connect(server.port) as peer:
        peer.send(b"GET / HTTP/2.0\r\n\r\n")
        answer = await peer.answer()
        assert (answer.status, answer.headers["x-kind"], answer.body) == (505, "mine", b"505 Onl")


@on_each_loop
async def test_application_that_raises_gives_500_and_the_connection_goes_on() -> None:
    def failing(exchange: Exchange) -> None:
        if exchange.path == "/bad":
            raise ZeroDivisionError("secret")
        echo(exchange)

    logging.getLogger("torpor.transport").disabled = True
    try:
        async with serving(failing) as server, await Peer.connect(server.port) as peer:
            peer.send(GET % b"bad" + GET % b"good")
            answer = await peer.answer()
            assert answer.status == 500 and b"secret" not in answer.body and b"message" in answer.body
            assert (await peer.answer()).status == 200
    finally:
        logging.getLogger("torpor.transport").disabled = False


@on_each_loop
async def test_connection_beyond_the_limit_is_refused_with_503() -> None:
    async with serving(echo, limits=HttpLimits(connections=1)) as server, await Peer.connect(server.port) as first:
        first.send(GET % b"")
        await first.answer()
        async with await Peer.connect(server.port) as second:
            assert (await second.answer()).status == 503 and await second.ended()
        first.send(GET % b"")
        assert (await first.answer()).status == 200


@on_each_loop
async def test_unix_socket_serves_and_its_file_goes_with_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/api.sock"
        server = await listen(echo, path=path)
        async with await Peer.connect(path=path) as peer:
            peer.send(post(b"abc"))
            assert (await peer.answer()).body == b"abc"
        assert server.port == 0 and os.path.exists(path)
        server.close()
        server.close()
        assert not os.path.exists(path)


@on_each_loop
async def test_given_listening_socket_is_served() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = await listen(echo, sock=listening)
    assert server.port == port and len(server.sockets) == 1
    async with await Peer.connect(port) as peer:
        peer.send(GET % b"")
        assert (await peer.answer()).status == 200
    server.close()
    assert server.sockets == () and server.port == 0


@on_each_loop
async def test_place_that_cannot_be_listened_on_raises_platform_error() -> None:
    async with serving(echo) as server:
        with pytest.raises(PlatformError, match=r"Cannot listen on 127\.0\.0\.1:\d+: another program"):
            await listen(echo, host="127.0.0.1", port=server.port)
    with pytest.raises(PlatformError):
        await listen(echo, path="/nonexistent/folder/x.sock")


@on_each_loop
async def test_drain_closes_idle_connections_and_lets_requests_finish() -> None:
    parking = Parking()
    async with serving(parking) as server:
        idle, busy = await Peer.connect(server.port), await Peer.connect(server.port)
        busy.send(GET % b"")
        await parking.wait_for(kept=1)
        assert await server.drain(0.05) is False
        assert await idle.ended()
        with pytest.raises(OSError):
            await Peer.connect(busy.writer.get_extra_info("peername")[1])
        draining = asyncio.ensure_future(server.drain(5))
        await asyncio.sleep(0)
        parking.kept[0].reply(200)
        assert (await busy.answer()).headers["connection"] == "close"
        assert await draining is True and server.connections == 0
        idle.vanish()
        busy.vanish()


@on_each_loop
async def test_close_tells_exchanges_in_flight() -> None:
    parking = Parking()
    async with serving(parking) as server, await Peer.connect(server.port) as peer:
        peer.send(GET % b"")
        await parking.wait_for(kept=1)
        server.close()
        await parking.wait_for(lost=1)
        assert parking.kept[0].reply(200) is False and await peer.ended()


@on_each_loop
async def test_five_hundred_servers_in_one_process_each_answer() -> None:
    servers = [await listen(echo, sock=socket.create_server(("127.0.0.1", 0))) for _ in range(500)]
    for server in servers[::25]:
        async with await Peer.connect(server.port) as peer:
            peer.send(GET % b"")
            assert (await peer.answer()).status == 200
    before = threading.active_count()
    for server in servers:
        server.close()
    assert threading.active_count() == before
