"""The HTTP client over real sockets, on plain asyncio and on uvloop."""

import asyncio
import socket

import pytest
from tests.support.raw_http import on_each_loop
from tests.support.serving import until
from tests.support.upstream import Record, Script, connected, saying, upstream

from torpor.transport import ClientConnection, ClientLimits, LossKind, Tunnel, connect, encode_request, refused, splice

GET = encode_request("GET", "/", [("Host", "x")], 0)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
MEGABYTE = 1 << 20


async def ask(connection: ClientConnection, head: bytes = GET, *, head_only: bool = False) -> Record:
    record = Record()
    connection.send(head, b"", record, head_only=head_only)
    await record.over.wait()
    return record


async def ask_once(script: Script, limits: ClientLimits | None = None) -> Record:
    async with upstream(script) as port:
        connection = await connected(port, limits)
        record = await ask(connection)
        await until(lambda: connection.closed or connection.idle)
        connection.close()
        return record


@on_each_loop
async def test_small_answer_is_told_in_three_words_and_the_connection_serves_again() -> None:
    async with upstream(saying(OK)) as port:
        connection = await connected(port)
        for _ in range(3):
            assert connection.idle
            record = await ask(connection)
            assert record.told == ["head", "data", "end"] and record.reusable
            assert (record.status, bytes(record.body)) == (200, b"abc")
        with pytest.raises(RuntimeError):
            connection.send(GET, b"", Record())
            connection.send(GET, b"", Record())
        connection.abort()
        assert connection.closed and not connection.idle


@on_each_loop
async def test_server_that_waits_for_an_acknowledgement_between_head_and_body_is_not_kept_waiting() -> None:
    rounds, patience = 20, 0.4  # a delayed acknowledgement takes 0.04 s, each time

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        for _ in range(rounds):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK[:-3])
            await writer.drain()
            writer.write(OK[-3:])

    async with upstream(script) as port:
        connection = await connected(port)
        began = asyncio.get_running_loop().time()
        for _ in range(rounds):
            assert (await ask(connection)).body == b"abc"
        assert asyncio.get_running_loop().time() - began < patience
        connection.close()


@on_each_loop
async def test_next_request_can_be_sent_from_within_the_end_of_the_last() -> None:
    async with upstream(saying(OK)) as port:
        connection = await connected(port)
        first, second = Record(), Record()
        first.on_end = lambda: connection.send(GET, b"", second)
        connection.send(GET, b"", first)
        await second.over.wait()
        assert second.told == ["head", "data", "end"] and second.reusable
        connection.close()


@on_each_loop
async def test_answers_without_a_body_leave_the_connection_usable() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        ):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)

    async with upstream(script) as port:
        connection = await connected(port)
        found = [await ask(connection, head_only=number == 0) for number in range(4)]
        assert [record.status for record in found] == [200, 204, 304, 200] and all(r.reusable for r in found)
        assert [record.told for record in found[:3]] == [["head", "end"]] * 3 and found[3].body == b"abc"
        connection.close()


@on_each_loop
async def test_answer_without_a_length_ends_with_the_connection() -> None:
    record = await ask_once(saying(b"HTTP/1.1 200 OK\r\n\r\nabc", b"def", close=True))
    assert record.body == b"abcdef" and record.reusable is False and record.loss is None


async def reset_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nabc")
    await asyncio.sleep(0.02)
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


@on_each_loop
async def test_reset_within_an_answer_without_a_length_is_a_loss() -> None:
    record = await ask_once(reset_at_once)
    assert record.loss is not None and record.loss.kind is LossKind.BROKEN and record.told[-1] == "lost"


@on_each_loop
async def test_ways_an_upstream_fails_are_told_apart() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for script, kind, started in (
        (saying(close=True), LossKind.CLOSED, False),
        (saying(reset=True), LossKind.CLOSED, False),
        (saying(b"HTTP/1.1 200", close=True), LossKind.BROKEN, True),
        (saying(OK[:-1], close=True), LossKind.BROKEN, True),
        (saying(chunked + b"3\r\nabc\r\n", close=True), LossKind.BROKEN, True),
        (saying(b"\x16\x03\x01 what is this"), LossKind.GARBAGE, True),
        (saying(chunked, b"zz\r\n"), LossKind.GARBAGE, True),
        (saying(b"HTTP/1.1 200 OK\r\n", *[b"A: %b\r\n" % (b"x" * 1000)] * 5), LossKind.HEAD_TOO_LARGE, True),
        (saying(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 30), LossKind.HEAD_TOO_LARGE, True),
    ):
        record = await ask_once(script, ClientLimits(header_bytes=2000, header_count=20))
        assert record.loss is not None, record.told
        assert (record.loss.kind, record.loss.started) == (kind, started)
        assert record.told.count("lost") == 1 and record.told[-1] == "lost" and "end" not in record.told


@on_each_loop
async def test_server_that_cannot_be_reached_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(OSError) as caught:
        await connected(port)
    assert refused(caught.value).kind is LossKind.REFUSED
    sock = socket.socket()
    sock.setblocking(False)
    with pytest.raises(TimeoutError) as late:
        await connect(sock, ("192.0.2.1", 9), ClientLimits(connect_timeout=0.0))
    assert refused(late.value).kind is LossKind.TIMEOUT and sock.fileno() == -1


@on_each_loop
async def test_idle_connection_that_the_server_closes_or_talks_on_is_forgotten() -> None:
    for script in (saying(OK, close=True), saying(OK, b"HTTP/1.1 200 OK\r\n\r\n")):
        async with upstream(script) as port:
            connection = await connected(port)
            forgotten = asyncio.Event()
            connection.on_closed = forgotten.set
            assert (await ask(connection)).reusable
            await forgotten.wait()
            assert connection.closed and not connection.idle


@on_each_loop
async def test_answer_that_closes_or_carries_more_than_itself_is_not_followed_by_another() -> None:
    for answer in (OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK + OK, OK + b"garbage"):
        record = await ask_once(saying(answer))
        assert record.body == b"abc" and record.reusable is False and record.loss is None


@on_each_loop
async def test_silent_server_is_a_timeout_and_a_slow_one_is_not() -> None:
    limits = ClientLimits(silence_timeout=0.2)
    for script, started in ((saying(), False), (saying(OK[:-1]), True)):
        record = await ask_once(script, limits)
        assert record.loss is not None and (record.loss.kind, record.loss.started) == (LossKind.TIMEOUT, started)

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK[:-10])
        for byte in OK[-10:]:
            await asyncio.sleep(0.06)
            writer.write(bytes([byte]))

    assert (await ask_once(slowly, limits)).body == b"abc"


@on_each_loop
async def test_fifty_megabytes_come_to_a_slow_sink_while_little_is_kept() -> None:
    total, sent = 50 * MEGABYTE, 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(b"x" * MEGABYTE)
            sent += MEGABYTE
            await writer.drain()

    async with upstream(script) as port:
        connection, record = await connected(port), Record()
        seen, ahead = 0, 0

        def slow(chunk: bytes) -> None:
            nonlocal seen, ahead
            seen += len(chunk)
            record.body.clear()
            ahead = max(ahead, sent - seen)
            if seen // (8 * MEGABYTE) > (seen - len(chunk)) // (8 * MEGABYTE):
                connection.pause()
                asyncio.get_running_loop().call_later(0.02, connection.resume)

        record.on_data = slow
        connection.send(GET, b"", record)
        await record.over.wait()
        assert seen == total and record.reusable and ahead < 20 * MEGABYTE
        assert len(record.told) > 50
        connection.close()


@on_each_loop
async def test_paused_connection_stops_the_server() -> None:
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * MEGABYTE)
            sent += 1
            await writer.drain()

    async with upstream(script) as port:
        connection, record = await connected(port), Record()
        record.on_data = lambda _: connection.pause()
        connection.send(GET, b"", record)
        await until(lambda: len(record.body) > 0)
        await asyncio.sleep(0.1)
        held, size = sent, len(record.body)
        await asyncio.sleep(0.1)
        assert sent == held and len(record.body) == size <= MEGABYTE and held < 20
        connection.abort()
        assert "lost" not in record.told


@on_each_loop
async def test_fifty_megabytes_go_to_a_slow_server_while_little_is_kept() -> None:
    for chunked in (False, True):
        total = 50 * MEGABYTE
        got = 0

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal got
            await reader.readuntil(b"\r\n\r\n")
            tail = b""
            while not (tail.endswith(b"0\r\n\r\n") if chunked else got == total):  # noqa: B023
                data = await reader.read(MEGABYTE)
                tail = (tail + data)[-5:]
                got += len(data)
            writer.write(OK)

        async with upstream(script) as port:
            connection, record = await connected(port), Record()
            left, waits = total, 0

            def pour(connection: ClientConnection = connection) -> None:
                nonlocal left, waits
                while left:
                    left -= 65536
                    if not connection.write(b"x" * 65536):
                        waits += 1
                        break
                if not left:
                    connection.finish_body()

            record.on_writable = pour
            head = encode_request("POST", "/", (), None if chunked else total)
            connection.send(head, b"", record, more=True, chunked=chunked)
            pour()
            await record.over.wait()
            assert record.reusable and waits > 2 and (got > total if chunked else got == total)
            connection.close()


@on_each_loop
async def test_answer_before_the_requests_end_is_heard_and_the_rest_not_sent() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    async with upstream(saying(refusal)) as port:
        connection, record = await connected(port), Record()
        connection.send(encode_request("POST", "/", (), 1000), b"abc", record, more=True)
        await record.over.wait()
        assert (record.status, record.reusable) == (413, False) and connection.closed
        assert connection.write(b"more") is False
        connection.finish_body()


@on_each_loop
async def test_request_given_up_is_seen_broken_by_the_server() -> None:
    seen: list[BaseException | bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"abc")
        try:
            seen.append(await reader.read())
        except ConnectionError as error:
            seen.append(error)

    async with upstream(script) as port:
        connection, record = await connected(port), Record()
        connection.send(encode_request("POST", "/", (), 1000), b"abc", record, more=True)
        await asyncio.sleep(0.05)
        connection.abort()
        await until(lambda: bool(seen))
        assert isinstance(seen[0], ConnectionResetError) and record.told == []


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
OFFER = encode_request("GET", "/", (), 0, upgrade="x")


@on_each_loop
async def test_upgraded_connection_is_a_tunnel_and_early_data_is_kept() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + b"early ")
        await asyncio.sleep(0.02)
        writer.write(b"later")
        assert await reader.read() == b"ping"
        writer.write(b" pong")
        writer.write_eof()

    async with upstream(script) as port:
        connection, record = await connected(port), Record()
        tunnels: list[Tunnel] = []
        record.on_upgraded = lambda rest: tunnels.append(connection.tunnel(rest))
        connection.send(OFFER, b"", record, upgrade=True)
        await record.over.wait()
        assert record.told == ["upgraded"] and record.status == 101 and record.rest == b"early "
        assert connection.closed and not connection.idle
        got, ends, gone = bytearray(), [], []
        tunnel = tunnels[0]
        tunnel.on_data, tunnel.on_end, tunnel.on_closed = got.extend, lambda: ends.append(1), gone.append
        await asyncio.sleep(0.05)
        assert not got
        tunnel.resume()
        await until(lambda: bytes(got) == b"early later")
        assert tunnel.write(b"ping")
        tunnel.end()
        assert tunnel.write(b"more") is False
        await until(lambda: bool(gone))
        assert bytes(got) == b"early later pong" and ends == [1] and gone == [True] and tunnel.closed


async def tunnel_to(port: int) -> Tunnel:
    connection, record = await connected(port), Record()
    found: list[Tunnel] = []
    record.on_upgraded = lambda rest: found.append(connection.tunnel(rest))
    connection.send(OFFER, b"", record, upgrade=True)
    await record.over.wait()
    return found[0]


@on_each_loop
async def test_spliced_tunnels_pass_bytes_ends_and_slowness() -> None:
    total, sent, got = 30 * MEGABYTE, 0, 0
    reading = asyncio.Event()

    async def source(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        while sent < total:
            writer.write(b"x" * MEGABYTE)
            sent += MEGABYTE
            await writer.drain()
        writer.write_eof()
        assert await reader.read() == b"thanks"
        writer.close()

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        await reading.wait()
        while data := await reader.read(MEGABYTE):
            got += len(data)
        writer.write(b"thanks")
        writer.close()

    async with upstream(source) as one, upstream(target) as other:
        over: list[bool] = []
        splice(await tunnel_to(one), await tunnel_to(other), over.append)
        await asyncio.sleep(0.2)
        assert sent < 25 * MEGABYTE and not over
        reading.set()
        await until(lambda: bool(over))
        assert got == total and over == [True]


@on_each_loop
async def test_break_of_one_tunnel_breaks_the_other() -> None:
    ends: list[BaseException | bytes] = []

    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + b"abc")
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        try:
            ends.append(await reader.read())
        except ConnectionError as error:
            ends.append(error)

    async with upstream(breaks) as one, upstream(waits) as other:
        over: list[bool] = []
        splice(await tunnel_to(one), await tunnel_to(other), over.append)
        await until(lambda: bool(over) and bool(ends))
        assert over == [False] and isinstance(ends[0], ConnectionResetError)
        dead = await tunnel_to(one)
        await asyncio.sleep(0.1)
        dead.abort()
        splice(dead, await tunnel_to(other), over.append)
        await until(lambda: len(over) == 2 and len(ends) == 2)
        assert over == [False, False] and isinstance(ends[1], ConnectionResetError)
