"""Asynchronous calls of Function Compute, sent and configured through the client of the current generation."""

import json
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from alibabacloud_fc20230330 import models as v3
from darabonba.runtime import RuntimeOptions
from tests.contracts.fc_support import Server

from torpor.model.errors import Throttled, TorporError
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.scheduling import ThrottleReason

PLACE = "acs:fc:cn-hangzhou:0000000000000000"
ENVIRONMENT = "0123456789abcdef0123456789abcdef"
GOOD = Outcome(status=OutcomeStatus.SUCCESS, payload=b'{"sum": 3}', environment=ENVIRONMENT)
FAILED = Outcome(
    status=OutcomeStatus.ERROR,
    payload=b'{"errorMessage":"no","errorType":"ValueError"}',
    error_type="UnhandledInvocationError",
    environment=ENVIRONMENT,
)
FULL = Throttled("Too many instances run already.", reason=ThrottleReason.ACCOUNT)
BROKEN = Outcome(status=OutcomeStatus.FAILURE, payload=b"")


@dataclass
class Runs:
    """What the runs of a server come to, one after the other; the last result stands for all that follow."""

    results: list[Outcome | TorporError | None]
    times: list[float] = field(default_factory=list)
    """When each began, as a monotonic time."""

    def __call__(self, invocation: Invocation) -> Outcome | TorporError | None:
        self.times.append(time.monotonic())
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]

    @property
    def gaps(self) -> list[float]:
        """Seconds between one and the next."""
        return [later - earlier for earlier, later in pairwise(self.times)]


def answer(server: Server, *results: Outcome | TorporError | None) -> Runs:
    """Decide what the server's runs come to; None lets one go on until the test ends it."""
    runs = Runs(list(results))
    server.dispatcher.answer = runs
    return runs


def call(server: Server, body: bytes, name: str, qualifier: str | None, headers: dict[str, str]) -> Any:
    """What the client makes of a call's answer."""
    given = v3.InvokeFunctionRequest(body=body, qualifier=qualifier)
    fields = v3.InvokeFunctionHeaders(common_headers={k.replace("_", "-"): v for k, v in headers.items()})
    return server.v3().invoke_function_with_options(name, given, fields, RuntimeOptions())


def send(
    server: Server, body: bytes = b"event", name: str = "hello", *, qualifier: str | None = None, **headers: str
) -> str:
    """Call it asynchronously; the request id that the caller is told. `headers` as `x_fc_async_delay="1"`."""
    reply = call(server, body, name, qualifier, {"x_fc_invocation_type": "Async", **headers})
    assert (reply.status_code, reply.body.read()) == (202, b"")
    identity: str = reply.headers["x-fc-request-id"]
    return identity


def configure(server: Server, name: str = "hello", *, qualifier: str | None = None, **values: Any) -> Any:
    """Set what applies to its asynchronous calls; `success` and `failure` are destinations."""
    success, failure = values.pop("success", None), values.pop("failure", None)
    if success or failure:
        values["destination_config"] = v3.DestinationConfig(
            on_success=v3.Destination(destination=success) if success else None,
            on_failure=v3.Destination(destination=failure) if failure else None,
        )
    body = v3.PutAsyncInvokeConfigInput(**values)
    request = v3.PutAsyncInvokeConfigRequest(body=body, qualifier=qualifier)
    return server.v3().put_async_invoke_config(name, request).body


def reserve(server: Server, number: int, name: str = "hello") -> None:
    """How many instances it may have."""
    body = v3.PutConcurrencyInput(reserved_concurrency=number)
    server.v3().put_concurrency_config(name, v3.PutConcurrencyConfigRequest(body=body))


def aliased(server: Server, alias: str, name: str = "hello") -> str:
    """Publish a version and give it an alias; the version's number."""
    client = server.v3()
    version = client.publish_function_version(
        name, v3.PublishFunctionVersionRequest(body=v3.PublishVersionInput())
    ).body.version_id
    given = v3.CreateAliasInput(alias_name=alias, version_id=version)
    client.create_alias(name, v3.CreateAliasRequest(body=given))
    return str(version)


def go_off(server: Server, name: str = "hello", qualifier: str = "LATEST") -> float:
    """Give it a timer, named `tick`, and let that go off once; the planned time, in seconds since the epoch."""
    config = json.dumps({"cronExpression": "@every 1s", "enable": True, "payload": "p"})
    body = v3.CreateTriggerInput(trigger_name="tick", trigger_type="timer", trigger_config=config, qualifier=qualifier)
    server.v3().create_trigger(name, v3.CreateTriggerRequest(body=body))
    planned = server.timers.planned(f"trigger:fc/{name}/tick")
    assert planned is not None
    server.until(lambda: time.time() > planned)
    server.loop.call_soon_threadsafe(server.timers.tick)
    return planned
