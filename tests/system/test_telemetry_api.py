"""The Telemetry and Logs API over real sockets, in front of a whole environment; the test speaks for its processes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.raw_http import Answer
from tests.system.test_extensions_api import REQUEST, Stage, _refusal, _stage

from torpor.lifecycle import PhaseName

TELEMETRY, LOGS = "/2022-07-01/telemetry", "/2020-08-15/logs"
FAST = {"timeoutMs": 25}


class Listener:
    """An HTTP listener inside: what it got, and how it answers."""

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.requests: list[tuple[str, str]] = []
        self.statuses: list[int] = []
        """Of the next answers; 200 once there is none left, 0 for none at all."""
        self.port = 0
        self.delay = 0.0

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for batch in self.batches for event in batch]

    def of(self, kind: str) -> list[Any]:
        return [event["record"] for event in self.events if event["type"] == kind]

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            line, *fields = head.decode().split("\r\n")
            named = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
            body = await reader.readexactly(int(named["content-length"]))
            method, target, _ = line.split()
            self.requests.append((method, target))
            status = self.statuses.pop(0) if self.statuses else 200
            if not status:
                return
            await asyncio.sleep(self.delay)
            if status == 200:
                self.batches.append(json.loads(body))
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    listener = Listener()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await listener.serve(reader, writer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()


def wanted(port: int, *types: str, **changes: Any) -> dict[str, Any]:
    destination = {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{port}/events?a=1"}
    body = {"schemaVersion": "2022-12-13", "types": types or ("platform", "function", "extension")}
    return {**body, "destination": destination, "buffering": FAST, **changes}


async def subscribe(stage: Stage, identifier: str, body: Any, path: str = TELEMETRY) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await stage.call("PUT", path, content, Lambda_Extension_Identifier=identifier)


async def respond(stage: Stage, path: str = "response", body: bytes = b"{}", **headers: str) -> None:
    answer = await stage.call("POST", f"/2018-06-01/runtime/invocation/{REQUEST}/{path}", body, **headers)
    assert answer.status == 202, answer


def write(stage: Stage, process: str, text: str) -> None:
    sandbox = stage.provider.sandboxes[stage.environment.id]
    next(item for item in sandbox._live.values() if item.spec.name == process).write(text.encode())


@asynccontextmanager
async def invoked(stage: Stage, identifier: str, lines: int = 1) -> AsyncIterator[None]:
    """One good invocation, with the extension ready before and after; all is idle inside."""
    async with stage.next_invocation() as runtime, stage.next_event(identifier):
        await stage.reached(PhaseName.IDLE)
        stage.assign()
        await runtime.answer()
        write(stage, "runtime", "".join(f"line {number}\n" for number in range(lines)))
        await respond(stage)
        async with stage.next_invocation():
            await stage.reached(PhaseName.IDLE)
            yield


async def test_subscriber_is_told_all_of_init_and_of_an_invocation_in_order(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        write(stage, "extensions/watcher", "before\n")
        identifier = await stage.registered("watcher", "SHUTDOWN")
        answer = await subscribe(stage, identifier, wanted(listener.port))
        assert (answer.status, answer.body) == (200, b'"OK"')
        async with invoked(stage, identifier):
            await stage.until(lambda: "platform.report" in listener.kinds)
    assert listener.kinds == [
        "platform.initStart",
        "extension",
        "platform.telemetrySubscription",
        "platform.initRuntimeDone",
        "platform.extension",
        "platform.initReport",
        "platform.start",
        "function",
        "platform.runtimeDone",
        "platform.report",
    ]  # fmt: skip
    assert set(listener.requests) == {("POST", "/events?a=1")}
    assert listener.of("function") == ["line 0"] and listener.of("extension") == ["before"]
    (done,) = listener.of("platform.runtimeDone")
    assert (done["requestId"], done["status"]) == (REQUEST, "success")
    assert [span["name"] for span in done["spans"]] == ["responseLatency", "responseDuration", "runtimeOverhead"]
    assert done["metrics"]["producedBytes"] == 2
    (report,) = listener.of("platform.report")
    assert report["spans"][0]["name"] == "extensionOverhead" and report["metrics"]["initDurationMs"] > 0
    (subscribed,) = listener.of("platform.telemetrySubscription")
    assert subscribed["name"] == "watcher" and subscribed["state"] == "Subscribed"


async def test_only_the_wanted_types_are_delivered_to_each(tmp_path: Path) -> None:
    async with listening() as lines, listening() as platform, _stage(tmp_path, "one", "two") as stage:
        one, two = await stage.registered("one"), await stage.registered("two")
        assert (await subscribe(stage, one, wanted(lines.port, "function"))).status == 200
        assert (await subscribe(stage, two, wanted(platform.port, "platform"))).status == 200
        async with stage.next_event(one), invoked(stage, two):
            await stage.until(lambda: "platform.report" in platform.kinds and lines.batches != [])
    assert set(lines.kinds) == {"function"} and "function" not in platform.kinds


async def test_function_error_is_told_by_runtime_done(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        await subscribe(stage, identifier, wanted(listener.port))
        async with stage.next_invocation() as runtime, stage.next_event(identifier):
            await stage.reached(PhaseName.IDLE)
            stage.assign()
            await runtime.answer()
            await respond(stage, "error", Lambda_Runtime_Function_Error_Type="Function.Bad")
            async with stage.next_invocation():
                await stage.until(lambda: "platform.report" in listener.kinds)
    (done,) = listener.of("platform.runtimeDone")
    assert (done["status"], done["errorType"]) == ("error", "Function.Bad")


async def test_crash_is_told_at_once_and_the_subscription_ends_with_the_reset(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "SHUTDOWN")
        slow = wanted(listener.port, buffering={"timeoutMs": 30_000})
        await subscribe(stage, identifier, slow)
        sandbox = stage.provider.sandboxes[stage.environment.id]
        async with stage.next_invocation() as runtime, stage.next_event(identifier) as event:
            await stage.reached(PhaseName.IDLE)
            stage.assign()
            await runtime.answer()
            sandbox.signal("runtime", 9)
            assert json.loads((await event.answer()).body)["shutdownReason"] == "failure"
            await stage.until(lambda: "platform.report" in listener.kinds)
        assert listener.of("platform.runtimeDone")[0]["errorType"] == "Runtime.ExitError"
        sandbox.signal("extensions/watcher", 9)
        await stage.reached(PhaseName.UNINITIALIZED)
        before = len(listener.events)
        stage.assign()
        again = await stage.registered("watcher")
        async with stage.next_invocation(), stage.next_event(again):
            await stage.reached(PhaseName.SERVING)
            await asyncio.sleep(0.05)
        assert len(listener.events) == before, "the new life has not subscribed"


async def test_init_inside_an_invocation_is_told_with_its_phase(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        sandbox = stage.provider.sandboxes[stage.environment.id]
        async with stage.next_invocation(), stage.next_event(identifier):
            await stage.reached(PhaseName.IDLE)
        sandbox.signal("runtime", 9)
        await stage.reached(PhaseName.UNINITIALIZED)
        stage.assign()
        again = await stage.registered("watcher")
        assert (await subscribe(stage, again, wanted(listener.port, "platform"))).status == 200
        async with stage.next_invocation(), stage.next_event(again):
            await stage.until(lambda: "platform.start" in listener.kinds)
    for kind in ("initStart", "initRuntimeDone", "initReport"):
        assert [record["phase"] for record in listener.of(f"platform.{kind}")] == ["invoke"]


async def test_subscription_after_init_is_refused(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        async with stage.next_invocation(), stage.next_event(identifier):
            await stage.reached(PhaseName.IDLE)
            late = await subscribe(stage, identifier, wanted(listener.port))
            text = "Telemetry API subscription is closed"
            assert _refusal(late) == (403, "Telemetry.SubscriptionClosed", text)
            logs = wanted(listener.port, schemaVersion="2020-08-15")
            late = await subscribe(stage, identifier, logs, LOGS)
            assert _refusal(late) == (403, "Logs.SubscriptionClosed", "Logs API subscription is closed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"types": []}, "types should not be empty"),
        ({"types": ["platform", "all"]}, "type all is not one of [platform, function, extension]"),
        ({"schemaVersion": ""}, "schemaVersion is not provided"),
        ({"schemaVersion": "2020-08-15"}, "schemaVersion should be one of [2022-07-01, 2022-12-13, 2025-01-29]"),
        ({"destination": None}, "destination is not provided"),
        ({"destination": {"protocol": "UDP"}}, "destination protocol should be HTTP or TCP"),
        ({"destination": {"protocol": "HTTP"}}, "URI is not provided"),
        ({"destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain"}}, "URI port is not provided"),
        ({"destination": {"protocol": "HTTP", "URI": "http://sandbox:9001/"}}, "URI port 9001 is reserved"),
        ({"destination": {"protocol": "HTTP", "URI": "http://127.0.0.1:80"}}, "URI host should be sandbox.localdomain"),
        ({"destination": {"protocol": "HTTP", "URI": "http://sandbox:8\r\nX: y"}}, "URI is malformed"),
        ({"destination": {"protocol": "HTTP", "URI": "https://sandbox:80"}}, "URI scheme should be http"),
        ({"destination": {"protocol": "TCP"}}, "port is not provided"),
        ({"destination": {"protocol": "TCP", "port": 70000}}, "port should be between 1 and 65535"),
        ({"buffering": {"maxItems": 1}}, "buffering.maxItems should be between 1000 and 10000"),
        ({"buffering": {"maxBytes": 1048577}}, "buffering.maxBytes should be between 262144 and 1048576"),
        ({"buffering": {"timeoutMs": 24}}, "buffering.timeoutMs should be between 25 and 30000"),
        (
            {"types": [], "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain"}},
            "types should not be empty; URI port is not provided",
        ),
    ],
)
async def test_malformed_subscription_is_refused_with_all_that_is_wrong(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        answer = await subscribe(stage, identifier, wanted(4000, **changes))
        assert _refusal(answer) == (400, "ValidationError", message)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"types":"platform"}', b'{"types":[1]}', b"\xff"])
async def test_subscription_that_is_no_json_of_its_form_is_refused(tmp_path: Path, body: bytes) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        status, kind, text = _refusal(await subscribe(stage, identifier, body))
        assert (status, kind) == (400, "ValidationError") and text
        status, kind, text = _refusal(await subscribe(stage, identifier, body, LOGS))
        assert (status, kind) == (400, "Logs.ValidationError") and text


async def test_subscriber_must_be_a_registered_extension(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        missing = await stage.call("PUT", TELEMETRY, b"{}")
        assert _refusal(missing)[:2] == (403, "Extension.MissingExtensionIdentifier")
        assert _refusal(await subscribe(stage, "x", {}))[:2] == (403, "Extension.InvalidExtensionIdentifier")
        unknown = await subscribe(stage, "8476a536-e9f4-11e8-9739-2dfe598c3fcd", {})
        expected = (403, "Extension.UnknownExtensionIdentifier", "Unknown Lambda-Extension-Identifier")
        assert _refusal(unknown) == expected
        assert (await stage.call("GET", TELEMETRY)).status == 404


async def test_listener_of_lines_must_be_there_when_it_is_named(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        nobody = wanted(0, destination={"protocol": "TCP", "port": 1})
        status, kind, _ = _refusal(await subscribe(stage, identifier, nobody))
        assert (status, kind) == (400, "ValidationError")


async def test_listener_of_lines_gets_an_event_a_line_and_again_after_it_hung_up(tmp_path: Path) -> None:
    lines: list[bytes] = []
    connections = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            lines.extend([line async for line in reader])
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server, _stage(tmp_path, "watcher") as stage:
        port = server.sockets[0].getsockname()[1]
        identifier = await stage.registered("watcher")
        destination = {"protocol": "TCP", "port": port}
        assert (await subscribe(stage, identifier, wanted(0, destination=destination))).status == 200
        async with invoked(stage, identifier, lines=3):
            await stage.until(lambda: connections > 1)
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.05)
    events = [json.loads(line) for line in lines]
    assert [event["record"] for event in events if event["type"] == "function"] == ["line 0", "line 1", "line 2"]
    assert events[0]["type"] == "platform.initStart"


async def test_logs_api_has_records_of_its_own_and_may_put(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        body = wanted(listener.port, schemaVersion="2020-08-15")
        body["destination"]["method"] = "PUT"
        assert (await subscribe(stage, identifier, body, LOGS)).body == b'"OK"'
        async with invoked(stage, identifier):
            await stage.until(lambda: "platform.report" in listener.kinds)
        kinds = ["platform.logsSubscription", "platform.extension", "platform.start", "function", "platform.end"]
        assert listener.kinds == [*kinds, "platform.report"]
        assert listener.of("platform.end") == [{"requestId": REQUEST}]
        assert set(listener.of("platform.report")[0]) == {"requestId", "metrics"}
        assert {method for method, _ in listener.requests} == {"PUT"}


async def test_newer_logs_schema_has_runtime_done_and_a_crash_is_a_fault(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "SHUTDOWN")
        body = wanted(listener.port, schemaVersion="2021-03-18")
        assert (await subscribe(stage, identifier, body, LOGS)).status == 200
        async with stage.next_invocation() as runtime, stage.next_event(identifier):
            await stage.reached(PhaseName.IDLE)
            stage.assign()
            await runtime.answer()
            stage.provider.sandboxes[stage.environment.id].signal("runtime", 9)
            await stage.until(lambda: "platform.report" in listener.kinds)
    assert listener.kinds[-4:] == ["platform.runtimeDone", "platform.fault", "platform.end", "platform.report"]
    assert listener.of("platform.fault") == [f"RequestId: {REQUEST} Process exited before completing request"]
    assert listener.of("platform.runtimeDone") == [{"requestId": REQUEST, "status": "error"}]


async def test_both_apis_in_one_environment_are_refused(tmp_path: Path) -> None:
    async with _stage(tmp_path, "one", "two") as stage:
        one, two = await stage.registered("one"), await stage.registered("two")
        assert (await subscribe(stage, one, wanted(4000))).status == 200
        logs = wanted(4000, schemaVersion="2020-08-15")
        status, kind, text = _refusal(await subscribe(stage, two, logs, LOGS))
        assert (status, kind) == (400, "Logs.ValidationError") and "Telemetry API is already in use" in text


async def test_second_subscription_of_an_extension_takes_the_place_of_the_first(tmp_path: Path) -> None:
    async with listening() as first, listening() as second, _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        await subscribe(stage, identifier, wanted(first.port, buffering={"timeoutMs": 30_000}))
        assert (await subscribe(stage, identifier, wanted(second.port))).status == 200
        async with invoked(stage, identifier):
            await stage.until(lambda: "platform.report" in second.kinds)
    assert first.batches == []
    assert second.kinds.count("platform.initStart") == second.kinds.count("platform.start") == 1


async def test_batch_that_is_not_taken_comes_again(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        listener.statuses = [500, 0, 302]
        identifier = await stage.registered("watcher")
        await subscribe(stage, identifier, wanted(listener.port))
        async with invoked(stage, identifier):
            await stage.until(lambda: "platform.report" in listener.kinds)
    assert len(listener.kinds) == len(set(listener.kinds)) and listener.kinds[0] == "platform.initStart"


async def test_nothing_reaches_a_frozen_environment_and_all_of_it_does_later(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "INVOKE")
        await subscribe(stage, identifier, wanted(listener.port, buffering={"timeoutMs": 100}))
        async with stage.next_invocation() as runtime, stage.next_event(identifier):
            await stage.reached(PhaseName.IDLE)
            stage.environment.rest()
            await stage.reached(PhaseName.FROZEN)
            await asyncio.sleep(0.2)
            assert listener.requests == []
            stage.assign()
            await runtime.answer()
            await stage.until(lambda: "platform.start" in listener.kinds)
    assert listener.kinds[0] == "platform.initStart"


async def test_shutdown_waits_for_the_last_events_of_an_extension_that_is_to_be_killed(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        listener.delay = 0.2
        identifier = await stage.registered("watcher")
        await subscribe(stage, identifier, wanted(listener.port, buffering={"timeoutMs": 30_000}))
        async with invoked(stage, identifier):
            stage.environment.rest()
            await stage.reached(PhaseName.FROZEN)
            stage.environment.stop("spindown")
            stage.provider.sandboxes[stage.environment.id].signal("runtime", 9)
            await stage.until(lambda: "platform.report" in listener.kinds)
            await asyncio.wait_for(stage.environment.ended(), 1)


async def test_shutdown_waits_no_longer_than_a_second_for_a_listener_that_takes_nothing(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        listener.delay = 60.0
        identifier = await stage.registered("watcher")
        await subscribe(stage, identifier, wanted(listener.port))
        async with invoked(stage, identifier):
            began = asyncio.get_running_loop().time()
            stage.environment.stop("spindown")
            stage.provider.sandboxes[stage.environment.id].signal("runtime", 9)
            await asyncio.wait_for(stage.environment.ended(), 5)
            assert 0.9 < asyncio.get_running_loop().time() - began < 1.6


async def test_environment_without_subscribers_is_followed_no_more_once_init_is_over(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        assert stage.environment._transcript.is_followed
        async with invoked(stage, identifier):
            assert not stage.environment._transcript.is_followed


async def test_extension_that_has_failed_cannot_subscribe(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        named = {"Lambda_Extension_Identifier": identifier, "Lambda_Extension_Function_Error_Type": "x"}
        assert (await stage.call("POST", "/2020-01-01/extension/init/error", **named)).status == 202
        refused = await subscribe(stage, identifier, wanted(4000))
        assert _refusal(refused)[:2] == (403, "Extension.InvalidExtensionState")


async def test_a_subscription_may_be_long(tmp_path: Path) -> None:
    async with listening() as listener, _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        long = wanted(listener.port) | {"comment": "x" * 900 * 1024}
        assert (await subscribe(stage, identifier, long)).status in (200, 400), "it is read"
        long["comment"] = "x" * 1100 * 1024
        assert (await subscribe(stage, identifier, long)).status == 413
