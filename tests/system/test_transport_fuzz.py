"""Any bytes, split anywhere, over a real socket: a row of valid answers and then the end, never an unhandled error."""

import asyncio
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.raw_http import LOOPS, Answer, Peer

from torpor.transport import Exchange, HttpLimits, HttpServer, listen

VALID = [
    b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
    b"POST /later HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b"POST /d HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
    b"GET /e?b HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"POST /big HTTP/1.1\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40000,
    b"GET /fail HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"POST /big HTTP/1.1\r\nContent-Length: 3000\r\n\r\n" + b"x" * 3000,
    b"GET /" + b"y" * 3000,
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50 + b"\r\n",
]
LIMITS = HttpLimits(header_bytes=2000, header_count=40, body_bytes=2000, linger_timeout=0.5, pipelined_bytes=500)


def app(exchange: Exchange) -> None:
    if exchange.path == "/fail":
        raise RuntimeError("as the test wants")
    if exchange.path == "/later":
        asyncio.get_running_loop().call_soon(exchange.reply, 200, (), exchange.body)
    else:
        exchange.reply(200, (("X", exchange.target),), exchange.body)


def streaming_app(exchange: Exchange) -> None:
    """Answers at once, later, whole or in pieces, before a body has come or with it; accepts what is offered."""
    source, loop = exchange.source, asyncio.get_running_loop()
    if exchange.upgrade and exchange.query == "b":
        tunnel = exchange.tunnel(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        if tunnel is not None:
            tunnel.on_end = tunnel.end
            tunnel.resume()
    elif source is None or exchange.path == "/b":
        exchange.begin(200, (), 2)
        loop.call_soon(exchange.write, b"ab")
        loop.call_soon(exchange.finish)
    elif exchange.path == "/later":
        loop.call_soon(source.pump, exchange.body.join, lambda whole: whole and app(exchange))
    elif exchange.path == "/c":
        loop.call_soon(app, exchange)
    else:
        source.pump(lambda piece: source.pause() or (loop.call_soon(source.resume) and None), lambda _: app(exchange))


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Valid requests in a row with a few bytes changed, dropped or put in."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(data)


async def converse(server: HttpServer, pieces: list[bytes]) -> list[Answer]:
    """Send the pieces and a side's end; every answer must parse, and the connection must end."""
    async with await Peer.connect(server.port) as peer:
        for piece in pieces:
            if peer.writer.transport.is_closing():
                break
            peer.send(piece)
            await asyncio.sleep(0)
        with suppress(OSError, RuntimeError):
            peer.writer.write_eof()
        answers = []
        while True:
            try:
                answers.append(await peer.answer())
            except asyncio.IncompleteReadError as end:
                assert end.partial == b"", end.partial
                return answers
            except ConnectionError:
                return answers


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("loop", list(LOOPS))
def test_any_bytes_get_valid_answers_and_the_end(loop: str, streams: bool, caplog: pytest.LogCaptureFixture) -> None:
    faults: list[dict[str, object]] = []
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.get_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        if streams:
            serve = listen(streaming_app, limits=LIMITS, streams=lambda method, path, headers: True)
        else:
            serve = listen(app, limits=LIMITS)
        server = runner.run(serve)

        @settings(max_examples=150, deadline=None)
        @given(st.one_of(mangled(), st.binary(max_size=200)), st.lists(st.integers(1, 4000), max_size=5))
        def check(data: bytes, cuts: list[int]) -> None:
            edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
            pieces = [data[start:end] for start, end in pairwise(edges)]
            for answer in runner.run(asyncio.wait_for(converse(server, pieces), 10)):
                assert answer.status in {100, 101, 200, 400, 408, 413, 414, 417, 431, 500, 501, 505}
            assert faults == []

        try:
            check()
        finally:
            server.close()
            runner.run(server.wait_closed())
    assert {record.name for record in caplog.records} <= {"torpor.transport"}
    assert all("as the test wants" in str(record.exc_info) for record in caplog.records)
