"""Streamed answers over real sockets, in front of a whole environment; the test speaks for its runtime."""

import asyncio
import base64
import json
import time
from pathlib import Path

import pytest
from tests.support.pools import until
from tests.support.raw_http import Answer, Peer
from tests.support.streams import STREAMING, Stage, Taker, chunk, end, request, staged, told, upload

from torpor.model.invocation import Outcome, OutcomeStatus

KIB = 1024
TYPE, BODY = "Lambda-Runtime-Function-Error-Type", "Lambda-Runtime-Function-Error-Body"
ERROR = {"errorType": "Broken", "errorMessage": "no"}
OK = (202, "OK")


def trailers(error: object, kind: str = "Broken") -> bytes:
    return end((TYPE, kind), (BODY, base64.b64encode(json.dumps(error).encode()).decode()))


def kind_of(outcome: Outcome) -> str:
    kind: str = json.loads(outcome.payload)["errorType"]
    assert kind == outcome.error_type
    return kind


async def answered(peer: Peer) -> tuple[int, str]:
    return told(await asyncio.wait_for(peer.answer(), 5))


async def test_each_piece_is_passed_on_before_the_next_is_written(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker)
        await until(lambda: taker.begun)
        assert (taker.type, taker.pieces) == ("text/plain", [])
        for number, piece in enumerate((b"one", b"two", b"3" * 50_000), 1):
            peer.send(chunk(piece))
            await until(lambda number=number: len(taker.taken) >= (3, 6, 50_006)[number - 1])
        assert not stage.outcomes
        peer.send(end())
        assert await answered(peer) == OK
        outcome = await stage.outcome(name)
        assert (outcome.status, outcome.payload, outcome.error_type) == (OutcomeStatus.SUCCESS, b"", "")
        await stage.asks_again()


@pytest.mark.parametrize("length", [True, False])
async def test_answer_that_comes_all_at_once_or_with_its_length_is_streamed_too(tmp_path: Path, length: bool) -> None:
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker, b"abc") if not length else await _with_length(stage, peer, taker)
        peer.send(b"" if length else chunk(b"def") + end())
        assert await answered(peer) == OK
        assert (await stage.outcome(name)).payload == b"" and taker.taken == b"abcdef"


async def _with_length(stage: Stage, peer: Peer, taker: Taker) -> str:
    name = await stage.invoke(taker)
    peer.send(request("POST", f"/{name}/response", {**STREAMING, "Content-Length": "6"}) + b"abcdef")
    return name


async def test_one_packet_with_all_of_it_and_its_trailers_is_enough(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.invoke(taker)
        fields = {**STREAMING, "Transfer-Encoding": "chunked"}
        peer.send(request("POST", f"/{name}/response", fields) + chunk(b"abc") + trailers(ERROR))
        assert await answered(peer) == OK
        outcome = await stage.outcome(name)
        assert taker.taken == b"abc" and taker.type == "application/octet-stream"
        assert (outcome.error_type, json.loads(outcome.payload)) == ("Broken", ERROR)


async def test_answer_without_a_byte_is_a_stream_all_the_same(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker)
        peer.send(end())
        assert await answered(peer) == OK
        assert (await stage.outcome(name)).status is OutcomeStatus.SUCCESS and taker.begun and not taker.pieces


@pytest.mark.parametrize(
    ("tail", "kind", "payload"),
    [
        (trailers(ERROR), "Broken", ERROR),
        (end((BODY, base64.b64encode(b'{"a":1}').decode())), "Unhandled", {"a": 1}),
        (end((TYPE, "Function.Odd")), "Function.Odd", {"errorType": "Function.Odd"}),
        (end((TYPE, "Odd"), (BODY, "%%%")), "Odd", {"errorType": "Odd"}),
        (end((TYPE, "x" * 300)), "x" * 256, {"errorType": "x" * 256}),
        (end(("X-Other", "1")), "", None),
    ],
)
async def test_error_behind_the_bytes_is_told_by_trailers(
    tmp_path: Path, tail: bytes, kind: str, payload: object
) -> None:
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker, b"part")
        peer.send(tail)
        assert await answered(peer) == OK
        outcome = await stage.outcome(name)
        assert outcome.error_type == kind and taker.taken == b"part"
        if payload is None:
            assert outcome.payload == b"" and outcome.status is OutcomeStatus.SUCCESS
        else:
            assert isinstance(payload, dict) and payload.items() <= json.loads(outcome.payload).items()
            assert outcome.status is OutcomeStatus.ERROR
        await stage.asks_again()


async def test_caller_that_wants_it_whole_gets_a_streamed_answer_collected(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        for tail, wanted in ((end(), b"onetwo"), (trailers(ERROR), json.dumps(ERROR).encode())):
            async with await stage.peer() as peer:
                name = await stage.begun(peer, None, b"one")
                peer.send(chunk(b"two") + tail)
                assert await answered(peer) == OK
                outcome = await stage.outcome(name)
                assert (outcome.payload, outcome.content_type) == (wanted, "text/plain")
                await stage.asks_again()


async def test_collected_answer_may_be_no_larger_than_any_other(tmp_path: Path) -> None:
    async with staged(tmp_path, RESPONSE_MAX=1000) as stage, await stage.peer() as peer:
        name = await stage.begun(peer, None, b"x" * 600)
        peer.send(chunk(b"x" * 401))
        assert await answered(peer) == (413, "RequestEntityTooLarge")
        assert kind_of(await stage.outcome(name)) == "Function.ResponseSizeTooLarge"
        await stage.asks_again()


@pytest.mark.parametrize("extra", [0, 1])
async def test_streamed_answer_has_a_limit_of_its_own(tmp_path: Path, extra: int) -> None:
    async with staged(tmp_path, RESPONSE_MAX=1000, STREAMED_MAX=50_000) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker)
        peer.send(chunk(b"x" * (50_000 + extra)))
        if extra:
            assert await answered(peer) == (413, "RequestEntityTooLarge")
            outcome = await stage.outcome(name)
            assert kind_of(outcome) == "Function.ResponseSizeTooLarge" and "(50000 bytes)" in outcome.payload.decode()
            assert len(taker.taken) <= 50_000
        else:
            peer.send(end())
            assert await answered(peer) == OK and len(taker.taken) == 50_000
        await stage.asks_again()


async def test_caller_that_reads_nothing_stops_the_runtime_and_costs_no_memory(tmp_path: Path) -> None:
    size = 64 * KIB
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker(slow=True)
        name = await stage.begun(peer, taker)
        sending = asyncio.ensure_future(_send_all(peer, 80, size))
        await until(lambda: taker.on_writable is not None)
        await asyncio.sleep(0.1)
        assert len(taker.pieces) <= 2 and not sending.done()
        while not stage.outcomes:
            taker.go_on()
            await asyncio.sleep(0)
        assert await answered(peer) == OK
        await sending
        assert len(taker.taken) == 80 * size and (await stage.outcome(name)).payload == b""


async def _send_all(peer: Peer, count: int, size: int) -> None:
    for _ in range(count):
        peer.send(chunk(b"x" * size))
        await peer.writer.drain()
    peer.send(end())


async def test_stream_goes_on_at_its_rate_once_the_burst_is_used_up(tmp_path: Path) -> None:
    bounds = {"STREAM_BURST": 256 * KIB, "STREAM_RATE": 1024 * KIB}
    async with staged(tmp_path, **bounds) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker)
        began = time.monotonic()
        await _send_all(peer, 8, 64 * KIB)
        assert await answered(peer) == OK
        await stage.outcome(name)
        took = time.monotonic() - began
        burst = next(at for at, size in _growth(taker) if size >= 240 * KIB) - began
        assert took >= 0.23 > burst  # 256 KiB at 1 MiB/s
        assert len(taker.taken) == 512 * KIB


def _growth(taker: Taker) -> list[tuple[float, int]]:
    sizes = [sum(len(piece) for piece in taker.pieces[: number + 1]) for number in range(len(taker.pieces))]
    return list(zip(taker.times, sizes, strict=True))


@pytest.mark.parametrize("slow", [False, True])
async def test_time_out_cuts_a_running_stream_even_one_whose_caller_is_slow(tmp_path: Path, slow: bool) -> None:
    async with staged(tmp_path, timeout=0.3) as stage, await stage.peer() as peer:
        taker = Taker(slow=slow)
        name = await stage.begun(peer, taker, b"part")
        outcome = await stage.outcome(name)
        assert kind_of(outcome) == "Sandbox.Timedout" and outcome.status is OutcomeStatus.TIMEOUT
        assert "Task timed out after 0.30 seconds" in outcome.payload.decode()
        assert taker.taken == b"part"
        assert await asyncio.wait_for(peer.ended(), 5), "the upload's connection is closed"
        taker.go_on()
        assert taker.taken == b"part"


async def test_crash_within_a_stream_is_told_as_what_it_is(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker, b"part")
        await until(lambda: taker.pieces)
        peer.vanish()
        await asyncio.sleep(0.01)
        stage.kill()
        assert kind_of(await stage.outcome(name)) == "Runtime.ExitError"


async def test_end_of_the_environment_ends_its_streams(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker, b"part")
        await until(lambda: taker.pieces)
        stage.environment.stop("spindown")
        assert (await stage.outcome(name)).status is OutcomeStatus.FAILURE
        assert await asyncio.wait_for(peer.ended(), 5)


async def test_upload_whose_connection_is_lost_fails_the_invocation_alone(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        async with await stage.peer() as peer:
            name = await stage.begun(peer, Taker(), b"part")
        outcome = await stage.outcome(name)
        assert kind_of(outcome) == "Runtime.TruncatedResponse" and outcome.status is OutcomeStatus.ERROR
        await stage.asks_again()


@pytest.mark.parametrize(
    "rest",
    [
        b"zz\r\n",
        b"3\r\nabcd\r\n",
        b"-1\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n" + b"".join(b"T%d: 1\r\n" % number for number in range(500)) + b"\r\n",
        b"0\r\nT: " + b"x" * (2 * KIB * KIB) + b"\r\n\r\n",
        None,
    ],
)
async def test_body_that_is_none_is_refused_and_the_runtime_may_go_on_at_once(
    tmp_path: Path, rest: bytes | None
) -> None:
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker, b"part")
        await until(lambda: taker.pieces)
        if rest is None:
            peer.writer.write_eof()
        else:
            peer.send(rest)
        status, kind = await answered(peer)
        assert (status, kind) == (400, "TruncatedHTTPRequest")
        await stage.asks_again()
        assert kind_of(await stage.outcome(name)) == "Runtime.TruncatedResponse"


async def test_stream_that_is_wrong_from_its_first_byte_fails_its_invocation_and_no_other_request_does(
    tmp_path: Path,
) -> None:
    async with staged(tmp_path) as stage:
        taker = Taker()
        name = await stage.invoke(taker)
        for wrong in (b"GARBAGE\r\n\r\n", request("POST", "/x/response", {"Content-Length": "a"}), _chunked("nobody")):
            async with await stage.peer() as peer:
                peer.send(wrong + b"zz\r\n")
                assert (await answered(peer))[0] == 400
        assert not stage.outcomes
        async with await stage.peer() as peer:
            peer.send(_chunked(name) + b"zz\r\n")
            assert await answered(peer) == (400, "TruncatedHTTPRequest")
        assert kind_of(await stage.outcome(name)) == "Runtime.TruncatedResponse" and not taker.begun
        await stage.asks_again()


def _chunked(name: str) -> bytes:
    return request("POST", f"/{name}/response", {**STREAMING, "Transfer-Encoding": "chunked"})


async def test_while_a_runtime_streams_every_other_call_of_it_is_out_of_turn(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker, b"part")
        await until(lambda: taker.pieces)
        for method, path, to in (
            ("GET", "/next", "Ready"),
            ("POST", f"/{name}/response", "InvocationResponse"),
            ("POST", f"/{name}/error", "InvocationErrorResponse"),
        ):
            answer = await stage.call(method, path, b"{}" if method == "POST" else b"")
            assert _refusal(answer) == (403, f"State transition from InvocationResponse to {to} failed for runtime. ")
        again = await stage.call("POST", f"/{name}/response", b"abc", **STREAMING)
        assert again.status == 403
        assert told(await stage.call("POST", "/other/response", b"{}")) == (400, "InvalidRequestID")
        assert told(await stage.call("POST", f"/{name}/response", b"x" * 7_000_000))[0] == 413
        peer.send(chunk(b"more") + end())
        assert await answered(peer) == OK and taker.taken == b"partmore"
        assert (await stage.outcome(name)).status is OutcomeStatus.SUCCESS


def _refusal(answer: Answer) -> tuple[int, str]:
    body = json.loads(answer.body)
    assert body["errorType"] == "InvalidStateTransition"
    return answer.status, body["errorMessage"].partition("Error:")[0]


async def test_stream_after_the_answer_or_for_another_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        name = await stage.invoke(taker := Taker())
        for path, status in (("nobody", 400), (name, 202), (name, 403)):
            async with await stage.peer() as peer:
                if status == 202:
                    assert told(await stage.call("POST", f"/{path}/response", b"{}")) == OK
                else:
                    upload(peer, path, b"part")
                    assert (await answered(peer))[0] == status
        assert not taker.begun and (await stage.outcome(name)).payload == b"{}"


@pytest.mark.parametrize("mode", ["buffered", "Streaming", "x"])
async def test_any_other_mode_is_refused_and_fails_the_invocation(tmp_path: Path, mode: str) -> None:
    async with staged(tmp_path) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker, b"x", **{"Lambda-Runtime-Function-Response-Mode": mode})
        peer.send(end())
        assert await answered(peer) == (400, "InvalidFunctionResponseMode")
        assert kind_of(await stage.outcome(name)) == "Runtime.InvalidResponseModeHeader" and not taker.begun


async def test_workers_stream_at_once(tmp_path: Path) -> None:
    async with staged(tmp_path, managed=True) as stage, await stage.peer() as one, await stage.peer() as two:
        first, second = Taker(), Taker()
        names = [await stage.begun(one, first, b"1"), await stage.begun(two, second, b"2")]
        await until(lambda: first.pieces and second.pieces)
        two.send(chunk(b"2") + end())
        assert await answered(two) == OK
        assert list(stage.outcomes) == [names[1]] and second.taken == b"22"
        one.send(end())
        assert await answered(one) == OK


async def test_worker_may_tell_an_error_in_place_of_what_it_streams(tmp_path: Path) -> None:
    async with staged(tmp_path, managed=True) as stage, await stage.peer() as peer:
        taker = Taker()
        name = await stage.begun(peer, taker, b"part")
        await until(lambda: taker.pieces)
        second = await stage.call("POST", f"/{name}/response", b"{}")
        assert told(second) == (400, "InvalidRequestID")
        error = await stage.call("POST", f"/{name}/error", json.dumps(ERROR).encode())
        assert told(error) == OK
        outcome = await stage.outcome(name)
        assert (outcome.error_type, json.loads(outcome.payload), taker.taken) == ("Unhandled", ERROR, b"part")
        assert await answered(peer) == (400, "InvalidRequestID")


@pytest.mark.parametrize("slow", [False, True])
async def test_managed_time_out_ends_one_stream_and_its_worker_is_told_with_its_next_piece(
    tmp_path: Path, slow: bool
) -> None:
    async with staged(tmp_path, managed=True, timeout=0.2) as stage, await stage.peer() as peer:
        taker = Taker(slow=slow)
        name = await stage.begun(peer, taker, b"part")
        assert kind_of(await stage.outcome(name)) == "Sandbox.Timedout"
        peer.send(chunk(b"late"))
        assert await answered(peer) == (410, "InvokeTimeout")
        assert taker.taken == b"part"
        late = await stage.call("POST", f"/{name}/response", b"{}")
        assert told(late) == (400, "InvalidRequestID")
        assert not stage.environment.machine.slots


async def test_worker_that_is_gone_after_its_time_was_up_leaves_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path, managed=True, timeout=0.2) as stage:
        async with await stage.peer() as peer:
            name = await stage.begun(peer, Taker(slow=True), b"part")
            await stage.outcome(name)
        await until(lambda: not stage.environment.machine.slots)
