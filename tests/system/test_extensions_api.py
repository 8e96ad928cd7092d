"""The Extensions API over real sockets, in front of a whole environment; the test speaks for its processes."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.raw_http import Answer, Peer

from torpor.contracts.lambda_.contract import LambdaContract
from torpor.contracts.lambda_.environment import Credentials
from torpor.engine.environment import Environment
from torpor.engine.surroundings import Surroundings
from torpor.lifecycle import PhaseName
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, Outcome
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.memory import MemoryProcess, MemoryProvider
from torpor.telemetry import History, Journal, Traces

CODE = CodeRef(digest="code", packed_bytes=1, unpacked_bytes=1)
LAYER = CodeRef(digest="layer", packed_bytes=1, unpacked_bytes=1)
FEATURES = {"Lambda-Extension-Accept-Feature": "accountId, other"}
REQUEST = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"


class Clock:
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class NoPool:
    is_awaited = False

    def settled(self, environment: Environment) -> None:
        pass


async def _hangs(process: MemoryProcess) -> None:
    await asyncio.Event().wait()


@dataclass
class Stage:
    environment: Environment
    provider: MemoryProvider
    journal: Journal
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def port(self) -> int:
        sandbox = self.provider.sandboxes[self.environment.id]
        return int(sandbox.api_address.rpartition(":")[2])

    @property
    def started(self) -> list[str]:
        """Names of the processes that run."""
        sandbox = self.provider.sandboxes[self.environment.id]
        return sorted(process.spec.name for process in sandbox._live.values())

    @asynccontextmanager
    async def sent(self, method: str, path: str, body: bytes = b"", **headers: str) -> AsyncIterator[Peer]:
        async with await Peer.connect(self.port) as peer:
            lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
            head = [f"{method} {path} HTTP/1.1", "Host: api", f"Content-Length: {len(body)}", *lines]
            peer.send(("\r\n".join(head) + "\r\n\r\n").encode() + body)
            yield peer

    async def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        async with self.sent(method, path, body, **headers) as peer:
            return await asyncio.wait_for(peer.answer(), 5)

    async def register(self, name: str, *events: str, **headers: str) -> Answer:
        body = json.dumps({"events": events}).encode()
        path = "/2020-01-01/extension/register"
        return await self.call("POST", path, body, Lambda_Extension_Name=name, **headers)

    async def registered(self, name: str, *events: str) -> str:
        answer = await self.register(name, *events)
        assert answer.status == 200, answer
        return answer.headers["lambda-extension-identifier"]

    def next_event(self, identifier: str) -> Any:
        return self.sent("GET", "/2020-01-01/extension/event/next", Lambda_Extension_Identifier=identifier)

    def next_invocation(self) -> Any:
        return self.sent("GET", "/2018-06-01/runtime/invocation/next")

    def assign(self, trace: str = "") -> None:
        self.environment.assign(
            Invocation(id=REQUEST, payload=b'{"secret":1}', resource="arn:f", trace=trace), self.outcomes.append
        )

    async def until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not what():
            assert time.monotonic() < deadline, (self.environment.phase, self.journal_lines())
            await asyncio.sleep(0.005)

    async def reached(self, phase: PhaseName) -> None:
        await self.until(lambda: self.environment.phase is phase)

    def journal_lines(self) -> list[str]:
        return [event.message for event in self.journal.read("group", 0, 1000)]


@asynccontextmanager
async def _stage(folder: Path, *extensions: str) -> AsyncIterator[Stage]:
    (folder / "code").mkdir()
    (folder / "layer" / "extensions" / "folder").mkdir(parents=True)
    for name in extensions:
        (folder / "layer" / "extensions" / name).write_text("")
    (folder / CODE.digest).mkdir(exist_ok=True)
    (folder / CODE.digest / "bootstrap").write_text("")
    programs = {f"/opt/extensions/{name}": _hangs for name in extensions if name != "missing"}
    provider = MemoryProvider({"/var/task/bootstrap": _hangs, **programs})
    await provider.open()
    version = FunctionVersion(
        function="f", version="$LATEST", resource="arn:f", revision="1", contract="lambda", runtime="provided.al2023",
        handler="h", code=CODE, layers=(LAYER,), log_group="group", account="123456789012",
        environment={"STAGE": "blue"},
    )  # fmt: skip
    credentials = Credentials(access_key="A", secret_key="S", session_token="T")
    journal = Journal(str(folder / "logs"))

    async def fetch(code: CodeRef) -> tuple[str, bool]:
        return str(folder / code.digest), False

    around = Surroundings(
        provider=provider, journal=journal, history=History(), traces=Traces(journal), clock=Clock(),
        loop=asyncio.get_running_loop(), fetch_code=fetch,
    )  # fmt: skip
    image = ImageCatalog("", ()).resolve("provided.al2023")
    contract = LambdaContract(credentials=credentials)
    environment = Environment(uuid.uuid4().hex, version, contract, image, around, NoPool())
    await environment.provision()
    yield Stage(environment, provider, journal)
    if environment.id in provider.sandboxes:
        provider.sandboxes[environment.id].kill_all()
    environment.stop("spindown")
    await asyncio.wait_for(environment.ended(), 5)
    await provider.close()


def _refusal(answer: Answer) -> tuple[int, str, str]:
    body = json.loads(answer.body)
    return answer.status, body["errorType"], body["errorMessage"]


async def test_external_extension_registers_by_its_file_name_and_only_then_the_runtime_starts(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        assert stage.started == ["extensions/watcher"]
        answer = await stage.register("watcher", "INVOKE", "SHUTDOWN")
        assert answer.status == 200
        assert str(uuid.UUID(answer.headers["lambda-extension-identifier"]))
        assert json.loads(answer.body) == {"functionName": "f", "functionVersion": "$LATEST", "handler": "h"}
        assert stage.started == ["extensions/watcher", "runtime"]


async def test_account_is_told_to_those_that_ask_for_it(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        answer = await stage.register("watcher", **FEATURES)
        assert json.loads(answer.body)["accountId"] == "123456789012"


async def test_extension_is_given_the_functions_variables_without_the_runtimes_own(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        (process,) = stage.provider.sandboxes[stage.environment.id]._live.values()
        given = process.environment
        assert given["STAGE"] == "blue" and given["AWS_ACCESS_KEY_ID"] == "A" and given["AWS_LAMBDA_RUNTIME_API"]
        assert given["PATH"] and given["TZ"] == ":UTC" and given["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
        forbidden = {"AWS_LAMBDA_LOG_GROUP_NAME", "AWS_XRAY_DAEMON_ADDRESS", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR"}
        assert not forbidden & set(given) and not [name for name in given if name.startswith("_")]


async def test_events_are_answers_to_the_parked_request(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "INVOKE", "SHUTDOWN")
        async with stage.next_invocation() as runtime, stage.next_event(identifier) as extension:
            await stage.reached(PhaseName.IDLE)
            stage.assign(trace="Root=1-5f35ae12-0c0fec141ab77a00bc047aa2;Sampled=1")
            answer = await extension.answer()
            event = json.loads(answer.body)
            deadline = event.pop("deadlineMs")
            assert event == {
                "eventType": "INVOKE",
                "requestId": REQUEST,
                "invokedFunctionArn": "arn:f",
                "tracing": {
                    "type": "X-Amzn-Trace-Id",
                    "value": "Root=1-5f35ae12-0c0fec141ab77a00bc047aa2;Sampled=1",
                },
            }
            assert answer.headers["content-type"] == "application/json"
            assert uuid.UUID(answer.headers["lambda-extension-event-identifier"])
            delivered = await runtime.answer()
            assert delivered.headers["lambda-runtime-deadline-ms"] == str(deadline)


async def test_event_without_a_trace_tells_of_no_tracing(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "INVOKE")
        async with stage.next_invocation(), stage.next_event(identifier) as extension:
            await stage.reached(PhaseName.IDLE)
            stage.assign()
            assert "tracing" not in json.loads((await extension.answer()).body)


async def test_event_whose_request_broke_off_is_told_to_the_next_request(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "INVOKE")
        async with stage.next_invocation():
            async with stage.next_event(identifier):
                await stage.reached(PhaseName.IDLE)
            await asyncio.sleep(0.05)
            stage.assign()
            async with stage.next_event(identifier) as again:
                assert json.loads((await asyncio.wait_for(again.answer(), 5)).body)["requestId"] == REQUEST


async def test_shutdown_is_the_last_event_and_has_no_identifier(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "SHUTDOWN")
        async with stage.next_invocation(), stage.next_event(identifier) as extension:
            await stage.reached(PhaseName.IDLE)
            before = time.time() * 1000
            stage.environment.stop("spindown")
            answer = await extension.answer()
            event = json.loads(answer.body)
            assert event["eventType"] == "SHUTDOWN" and event["shutdownReason"] == "spindown"
            assert event["deadlineMs"] == pytest.approx(before + 2000, abs=200)
            assert "lambda-extension-event-identifier" not in answer.headers


async def test_extension_that_works_during_a_reset_is_told_of_it_when_it_asks(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "INVOKE", "SHUTDOWN")
        async with stage.next_invocation(), stage.next_event(identifier) as extension:
            await stage.reached(PhaseName.IDLE)
            stage.assign()
            await extension.answer()
            stage.provider.sandboxes[stage.environment.id].signal("runtime", 9)
            await stage.reached(PhaseName.RESETTING)
            async with stage.next_event(identifier) as again:
                event = json.loads((await again.answer()).body)
        assert event["shutdownReason"] == "failure"
        stage.provider.sandboxes[stage.environment.id].signal("extensions/watcher", 9)
        await stage.reached(PhaseName.UNINITIALIZED)
        stage.assign()
        stale = await stage.call("GET", "/2020-01-01/extension/event/next", Lambda_Extension_Identifier=identifier)
        assert _refusal(stale) == (403, "Extension.UnknownExtensionIdentifier", f"Unknown extension {identifier}")
        assert await stage.registered("watcher", "INVOKE") != identifier


async def test_internal_extension_registers_before_the_runtimes_first_request_only(tmp_path: Path) -> None:
    async with _stage(tmp_path) as stage:
        identifier = await stage.registered("inner", "INVOKE")
        taken = await stage.register("inner", "INVOKE")
        text = "Extension with this name already registered"
        assert _refusal(taken) == (403, "Extension.InvalidExtensionState", text)
        async with stage.next_invocation(), stage.next_event(identifier):
            await stage.reached(PhaseName.IDLE)
            late = await stage.register("late")
            assert _refusal(late) == (403, "Extension.RegistrationClosed", "Extension registration closed already")


async def test_ready_extensions_are_told_of_in_the_log_after_init(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        outer, inner = await stage.registered("watcher", "SHUTDOWN", "INVOKE"), await stage.registered("inner")
        async with stage.next_invocation(), stage.next_event(outer), stage.next_event(inner):
            await stage.reached(PhaseName.IDLE)
            await stage.until(lambda: len(stage.journal_lines()) >= 3)
            assert [line for line in stage.journal_lines() if line.startswith("EXTENSION")] == [
                "EXTENSION\tName: watcher\tState: Ready\tEvents: [INVOKE, SHUTDOWN]\n",
                "EXTENSION\tName: inner\tState: Ready\tEvents: []\n",
            ]


@pytest.mark.parametrize(
    ("name", "body", "kind", "message"),
    [
        ("", b"{}", "Extension.InvalidExtensionName", "Empty extension name"),
        ("watcher", b"{", "InvalidRequestFormat", ""),
        ("watcher", b'{"events":"INVOKE"}', "InvalidRequestFormat", ""),
        ("watcher", b'{"configurationKeys":["A"]}', "InvalidRequestFormat", ""),
        ("watcher", b'{"events":["FOO"]}', "Extension.InvalidEventType", "FOO: ErrorInvalidEventType"),
        (
            "inner",
            b'{"events":["SHUTDOWN"]}',
            "Extension.InvalidEventType",
            "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension",
        ),
    ],
)
async def test_malformed_registration_is_refused(
    tmp_path: Path, name: str, body: bytes, kind: str, message: str
) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        answer = await stage.call("POST", "/2020-01-01/extension/register", body, Lambda_Extension_Name=name)
        status, told, text = _refusal(answer)
        assert (status, told) == (403, kind) and text and message in text
        assert (await stage.register("watcher", "INVOKE")).status == 200


async def test_external_extension_that_registers_again_is_refused_in_any_phase(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher")
        for state in ("Registered", "Ready"):
            text = (
                f"State transition from {state} to Registered failed for extension watcher. "
                "Error: State transition is not allowed"
            )
            assert _refusal(await stage.register("watcher")) == (403, "Extension.InvalidExtensionState", text)
            async with stage.next_invocation(), stage.next_event(identifier):
                await stage.reached(PhaseName.IDLE)


async def test_eleventh_extension_is_refused(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        await stage.registered("watcher")
        for number in range(9):
            await stage.registered(f"inner-{number}")
        refused = await stage.register("one-too-many")
        assert _refusal(refused) == (403, "Extension.TooManyExtensions", "Extension limit (10) reached")


@pytest.mark.parametrize("path", ["event/next", "init/error", "exit/error"])
async def test_call_without_a_known_identifier_is_refused(tmp_path: Path, path: str) -> None:
    method = "GET" if path == "event/next" else "POST"
    path, other = f"/2020-01-01/extension/{path}", str(uuid.uuid4())
    unknown = f"Unknown extension {other}" if method == "GET" else "Unknown Lambda-Extension-Identifier"
    expected = {
        "": ("Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header"),
        "no-uuid": ("Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier"),
        other: ("Extension.UnknownExtensionIdentifier", unknown),
    }
    async with _stage(tmp_path, "watcher") as stage:
        for identifier, refusal in expected.items():
            headers = {"Lambda_Extension_Identifier": identifier} if identifier else {}
            headers |= {} if method == "GET" else {"Lambda_Extension_Function_Error_Type": "Extension.Own"}
            assert _refusal(await stage.call(method, path, **headers)) == (403, *refusal)


async def test_second_request_for_an_event_is_refused_while_the_first_is_open(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "INVOKE")
        asked = {"Lambda_Extension_Identifier": identifier}
        async with stage.next_invocation(), stage.next_event(identifier):
            await stage.reached(PhaseName.IDLE)
            refused = await stage.call("GET", "/2020-01-01/extension/event/next", **asked)
            assert _refusal(refused) == (
                403,
                "Extension.InvalidExtensionState",
                f"State transition from Ready to Ready failed for extension {identifier}. "
                "Error: State transition is not allowed",
            )
        async with stage.next_invocation(), stage.next_event(identifier) as asking:
            await asyncio.sleep(0.02)
            stage.assign()
            assert b'"INVOKE"' in (await asking.answer()).body


async def test_error_needs_a_type_and_is_taken_once(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "INVOKE")
        path = "/2020-01-01/extension/init/error"
        bare = await stage.call("POST", path, Lambda_Extension_Identifier=identifier)
        text = "Lambda-Extension-Function-Error-Type not found"
        assert _refusal(bare) == (403, "Extension.MissingHeader", text)
        headers = {
            "Lambda_Extension_Identifier": identifier,
            "Lambda_Extension_Function_Error_Type": "Extension.Reason",
        }
        assert (await stage.call("POST", path, b"{}", **headers)).status == 202
        await stage.until(lambda: any("Error Type: Extension.InitError" in line for line in stage.journal_lines()))
        again = await stage.call("POST", path, b"{}", **headers)
        assert again.status == 403


async def test_init_error_of_a_ready_extension_is_refused_but_it_may_give_up(tmp_path: Path) -> None:
    async with _stage(tmp_path, "watcher") as stage:
        identifier = await stage.registered("watcher", "INVOKE")
        headers = {
            "Lambda_Extension_Identifier": identifier,
            "Lambda_Extension_Function_Error_Type": "Extension.Reason",
        }
        async with stage.next_invocation(), stage.next_event(identifier):
            await stage.reached(PhaseName.IDLE)
            stage.assign()
            early = await stage.call("POST", "/2020-01-01/extension/init/error", b"{}", **headers)
            text = f"from Running to InitError failed for extension {identifier}."
            assert early.status == 403 and text in _refusal(early)[2]
            late = await stage.call("POST", "/2020-01-01/extension/exit/error", b"{}", **headers)
            assert late.status == 202
            again = await stage.call("GET", "/2020-01-01/extension/event/next", **headers)
            assert (
                again.status == 403
                and f"from ExitError to Ready failed for extension {identifier}." in _refusal(again)[2]
            )
        assert stage.outcomes[0].error_type == "Extension.ExitError"


async def test_extension_that_cannot_be_started_fails_init_as_a_launch_error(tmp_path: Path) -> None:
    async with _stage(tmp_path, "missing") as stage:
        await stage.until(lambda: any("Error Type: Extension.LaunchError" in line for line in stage.journal_lines()))


async def test_unknown_paths_are_not_found_and_the_others_have_one_method(tmp_path: Path) -> None:
    extension, runtime = "/2020-01-01/extension", "/2018-06-01/runtime"
    async with _stage(tmp_path) as stage:
        for path in (f"{extension}/nothing", f"{runtime}/nothing", "/ping"):
            assert (await stage.call("GET", path)).status == 404
        for allowed, path in (
            ("POST", f"{extension}/register"),
            ("GET", f"{extension}/event/next"),
            ("GET", f"{runtime}/invocation/next"),
            ("POST", f"{runtime}/invocation/some/response"),
        ):
            answer = await stage.call("PUT", path, b"{}")
            assert (answer.status, answer.headers["allow"]) == (405, allowed)
