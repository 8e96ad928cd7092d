"""Fields behind a body in chunks, and bodies that are cut off, on plain asyncio and on uvloop."""

import asyncio

from tests.support.raw_http import Peer, on_each_loop
from tests.support.serving import serving, until

from torpor.transport import Exchange, Headers, HttpLimits

CHUNKED = b"POST /up HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMITS = HttpLimits(header_bytes=4096, header_count=5)


def always(method: str, path: str, headers: Headers) -> bool:
    return True


class Taking:
    """Takes bodies while they come and answers their trailers."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.pieces: list[bytes] = []
        self.ends: list[bool] = []

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if exchange.source is None:
            self._end(True)
        else:
            self.pieces.append(exchange.body)
            exchange.source.pump(self.pieces.append, self._end)

    def _end(self, whole: bool) -> None:
        self.ends.append(whole)
        exchange = self.exchanges[-1]
        if whole:
            told = exchange.trailers.items() if exchange.trailers is not None else ()
            exchange.reply(200, (), repr(list(told)).encode())


async def answered(taking: Taking, *pieces: bytes) -> tuple[int, bytes]:
    async with serving(taking, streams=always, limits=LIMITS) as server, await Peer.connect(server.port) as peer:
        for piece in pieces:
            peer.send(piece)
            await asyncio.sleep(0.01)
        answer = await peer.answer()
        return answer.status, answer.body


@on_each_loop
async def test_trailers_are_there_once_the_body_is_whole_however_it_is_cut() -> None:
    wanted = (200, b"[('A', '1'), ('b', '2 3'), ('a', '')]")
    rest = b"3\r\nabc\r\n0\r\nA: 1\r\nb:  2 3 \r\na:\r\n\r\n"
    assert await answered(Taking(), CHUNKED + rest) == wanted
    assert await answered(Taking(), CHUNKED, rest) == wanted
    for cut in range(10, len(rest), 4):
        assert await answered(Taking(), CHUNKED + rest[:8], rest[8:cut], rest[cut:]) == wanted


@on_each_loop
async def test_trailers_belong_to_their_own_request() -> None:
    taking = Taking()
    async with serving(taking, streams=always, limits=LIMITS) as server, await Peer.connect(server.port) as peer:
        peer.send(
            CHUNKED + b"1\r\nx\r\n0\r\nA: 1\r\n\r\n" + CHUNKED + b"1\r\ny\r\n0\r\n\r\n" + b"GET /up HTTP/1.1\r\n\r\n"
        )
        assert [(await peer.answer()).body for _ in range(3)] == [b"[('A', '1')]", b"[]", b"[]"]
    assert [exchange.headers.get("a") for exchange in taking.exchanges] == ["", "", ""]


@on_each_loop
async def test_no_more_trailers_are_kept_than_a_head_may_have() -> None:
    for trailers, status in (
        (b"A: 1\r\n" * 5, 200),
        (b"A: 1\r\n" * 6, 400),
        (b"A: " + b"x" * 3000 + b"\r\n", 200),
        (b"A: " + b"x" * 40_000 + b"\r\n", 400),
        (b"no trailer\r\n", 400),
        (b"A\x00: 1\r\n", 400),
    ):
        taking = Taking()
        assert (await answered(taking, CHUNKED + b"3\r\nabc\r\n", b"0\r\n", trailers, b"\r\n"))[0] == status
        assert taking.ends == [status == 200] and taking.pieces == [b"abc"]


@on_each_loop
async def test_who_ends_within_a_body_is_told_so() -> None:
    taking = Taking()
    async with serving(taking, streams=always) as server, await Peer.connect(server.port) as peer:
        peer.send(CHUNKED + b"3\r\nab")
        await until(lambda: taking.pieces == [b"ab"])
        peer.writer.write_eof()
        assert (await peer.answer()).status == 400 and await peer.ended()
        assert taking.ends == [False]
