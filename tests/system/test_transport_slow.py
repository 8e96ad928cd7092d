"""Slow and stalling peers, with time-outs shortened by limits."""

import asyncio

from tests.support.raw_http import Peer, on_each_loop

from torpor.transport import Exchange, HttpLimits, listen

POST = b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n"


def echo(exchange: Exchange) -> None:
    exchange.reply(200, (), exchange.body)


async def trickle(peer: Peer, data: bytes, pause: float) -> None:
    for byte in data:
        if peer.reader.at_eof() or peer.writer.is_closing():
            return
        peer.send(bytes([byte]))
        await asyncio.sleep(pause)


@on_each_loop
async def test_head_that_trickles_in_is_refused_in_time() -> None:
    server = await listen(echo, limits=HttpLimits(head_timeout=0.2, idle_timeout=60))
    async with await Peer.connect(server.port) as peer:
        sending = asyncio.ensure_future(trickle(peer, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000, 0.02))
        started = asyncio.get_running_loop().time()
        answer = await peer.answer()
        assert answer.status == 408 and b"head" in answer.body
        assert 0.2 <= asyncio.get_running_loop().time() - started < 1
        sending.cancel()
    server.close()


@on_each_loop
async def test_body_that_falls_silent_is_refused() -> None:
    server = await listen(echo, limits=HttpLimits(body_timeout=0.2))
    async with await Peer.connect(server.port) as peer:
        peer.send(POST + b"abc")
        answer = await peer.answer()
        assert answer.status == 408 and b"body" in answer.body and await peer.ended()
    assert server.statistics().timeouts == 1
    server.close()


@on_each_loop
async def test_body_below_the_least_rate_is_refused_although_never_silent() -> None:
    server = await listen(echo, limits=HttpLimits(body_timeout=0.3, body_rate=1_000_000))
    async with await Peer.connect(server.port) as peer:
        peer.send(POST)
        sending = asyncio.ensure_future(trickle(peer, b"x" * 999, 0.02))
        assert (await peer.answer()).status == 408
        sending.cancel()
    server.close()


@on_each_loop
async def test_slow_body_that_keeps_its_rate_is_served() -> None:
    server = await listen(echo, limits=HttpLimits(body_timeout=0.3, body_rate=100))
    async with await Peer.connect(server.port) as peer:
        peer.send(POST)
        for _ in range(10):
            await asyncio.sleep(0.1)
            peer.send(b"x" * 100)
        assert (await peer.answer()).body == b"x" * 1000
    server.close()


@on_each_loop
async def test_idle_connection_is_closed_without_a_word() -> None:
    server = await listen(echo, limits=HttpLimits(idle_timeout=0.1, head_timeout=60))
    async with await Peer.connect(server.port) as peer:
        peer.send(b"GET / HTTP/1.1\r\n\r\n")
        await peer.answer()
        assert await peer.ended()
    server.close()


@on_each_loop
async def test_connection_that_never_speaks_is_closed_after_the_head_timeout() -> None:
    server = await listen(echo, limits=HttpLimits(head_timeout=0.1, idle_timeout=60))
    async with await Peer.connect(server.port) as peer:
        assert await peer.ended()
    server.close()


@on_each_loop
async def test_empty_lines_do_not_keep_a_connection_open() -> None:
    server = await listen(echo, limits=HttpLimits(head_timeout=0.2, idle_timeout=0.2))
    async with await Peer.connect(server.port) as peer:
        sending = asyncio.ensure_future(trickle(peer, b"\r\n" * 200, 0.02))
        async with asyncio.timeout(2):
            assert await peer.ended()
        sending.cancel()
    server.close()


@on_each_loop
async def test_busy_connection_outlives_its_idle_timeout() -> None:
    server = await listen(echo, limits=HttpLimits(idle_timeout=0.2))
    async with await Peer.connect(server.port) as peer:
        for _ in range(20):
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            assert (await peer.answer()).status == 200
            await asyncio.sleep(0.05)
    server.close()


@on_each_loop
async def test_peer_that_reads_nothing_stops_being_served_and_is_dropped() -> None:
    served: list[Exchange] = []
    connected = asyncio.Event()

    def large(exchange: Exchange) -> None:
        served.append(exchange)
        exchange.reply(200, (), b"x" * 4_000_000)
        connected.set()

    server = await listen(large, limits=HttpLimits(write_timeout=0.2))
    async with await Peer.connect(server.port) as peer:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(b"GET / HTTP/1.1\r\n\r\n" * 50)
        async with asyncio.timeout(5):
            await connected.wait()
            await server.wait_closed()
        assert len(served) <= 3 and server.statistics().timeouts == 1
    server.close()


@on_each_loop
async def test_peer_that_does_not_read_its_last_answer_is_dropped() -> None:
    connected = asyncio.Event()

    def large(exchange: Exchange) -> None:
        exchange.reply(200, (), b"x" * 8_000_000)
        connected.set()

    server = await listen(large, limits=HttpLimits(write_timeout=0.2))
    async with await Peer.connect(server.port) as peer:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            await connected.wait()
            await server.wait_closed()
        assert server.statistics().timeouts == 1
    server.close()


@on_each_loop
async def test_peer_that_reads_slowly_gets_everything() -> None:
    size = 3_000_000

    def large(exchange: Exchange) -> None:
        exchange.reply(200, (), b"x" * size)

    server = await listen(large, limits=HttpLimits(write_timeout=0.2))
    async with await Peer.connect(server.port) as peer:
        peer.send(b"GET / HTTP/1.1\r\n\r\n" * 2)
        left = 2 * size
        while left > 0:
            left -= len(await peer.reader.read(150_000))
            await asyncio.sleep(0.02)
        assert server.statistics().timeouts == 0
    server.close()


@on_each_loop
async def test_peer_that_never_stops_sending_after_a_refusal_is_cut_off() -> None:
    server = await listen(echo, limits=HttpLimits(body_bytes=10, linger_timeout=0.2))
    async with await Peer.connect(server.port) as peer:
        peer.send(POST)
        assert (await peer.answer()).status == 413
        async with asyncio.timeout(5):
            while server.connections:
                peer.send(b"x" * 1000)
                await asyncio.sleep(0.01)
    server.close()
