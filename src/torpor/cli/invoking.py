"""`torpor invoke`."""

import base64
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torpor.cli.client import Answer, client, function_path
from torpor.cli.fc_functions import fc_path, is_fc
from torpor.cli.functions import missing_to_run
from torpor.cli.output import note, show, show_json, working
from torpor.model.errors import InvalidRequest, NotFound

_TENANT = re.compile(r"[a-zA-Z0-9._:/=+\-@ ]{1,256}")
_PATIENCE = 960.0
"""Longer than the longest function may run with its init."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """Names of header fields."""

    log_type: str
    log: str
    failure: str
    version: str
    request_id: str
    event: tuple[str, str]
    """The field that makes a call an asynchronous one, and what it says then."""


_LAMBDA = _Words(
    log_type="X-Amz-Log-Type",
    log="x-amz-log-result",
    failure="x-amz-function-error",
    version="x-amz-executed-version",
    request_id="x-amzn-requestid",
    event=("X-Amz-Invocation-Type", "Event"),
)
_FC = _Words(
    log_type="X-Fc-Log-Type",
    log="x-fc-log-result",
    failure="x-fc-error-type",
    version="x-fc-invocation-service-version",
    request_id="x-fc-request-id",
    event=("X-Fc-Invocation-Type", "Async"),
)


def invoke(name: str, payload: str, *, tail: bool, tenant: str | None, endpoint: str | None, as_json: bool) -> int:
    """Run a function once: its result on standard output, 1 if it failed. Raises NotFound, InvalidRequest."""
    words = _words(name)
    answer = _call(name, payload, tenant, endpoint, {words.log_type: "Tail" if tail else "None"})
    if as_json:
        show_json(_as_value(answer, words))
    else:
        _show(name, answer, words)
    return 1 if words.failure in answer.headers else 0


def send_event(name: str, payload: str, *, tenant: str | None, endpoint: str | None, as_json: bool) -> int:
    """Leave an asynchronous event for a function, which runs later: prints the event's id. Raises NotFound,
    InvalidRequest."""
    words = _words(name)
    answer = _call(name, payload, tenant, endpoint, dict([words.event]))
    identity = answer.headers.get(words.request_id, "")
    if as_json:
        show_json({"status": answer.status, "request_id": identity})
    else:
        show(f"Accepted as event {identity}; `torpor events show {identity}` tells what becomes of it.")
    return 0


def _words(name: str) -> _Words:
    return _FC if is_fc(name) else _LAMBDA


def _call(name: str, payload: str, tenant: str | None, endpoint: str | None, fields: dict[str, str]) -> Answer:
    body, server = _payload(payload), client(endpoint)
    if "/" in name and not is_fc(name):
        raise missing_to_run(name, server)
    path, query = _place(name)
    headers = {"Content-Type": "application/json", **fields}
    if tenant is not None:
        headers["X-Amz-Tenant-Id"] = _tenant(name, tenant)
    try:
        with working(f"Running {name}"):
            return server.request("POST", path, query=query, body=body, headers=headers, patience=_PATIENCE)
    except NotFound as error:
        raise missing_to_run(name, server) from error


def _tenant(name: str, tenant: str) -> str:
    if is_fc(name):
        raise InvalidRequest("Functions of Function Compute have no tenants: leave --tenant-id out.")
    if not _TENANT.fullmatch(tenant):
        raise InvalidRequest("--tenant-id takes up to 256 letters, digits, spaces and . _ : / = + - @ only.")
    return tenant


def _place(name: str) -> tuple[str, dict[str, str]]:
    if not is_fc(name):
        return function_path(name, "invocations"), {}
    base, _, qualifier = name.partition(":")
    return fc_path(base, "invocations"), {"qualifier": qualifier} if qualifier else {}


def _payload(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return given.encode()
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"The payload file {given[1:]} cannot be read: {error.strerror}.") from error


def _log(answer: Answer, words: _Words) -> str:
    return base64.b64decode(answer.headers.get(words.log, "")).decode(errors="replace")


def _value(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _as_value(answer: Answer, words: _Words) -> dict[str, Any]:
    value = {"status": answer.status, "version": answer.headers.get(words.version, "")}
    value |= {"error": answer.headers.get(words.failure), "payload": _value(answer.body)}
    log = _log(answer, words)
    return value | ({"log": log.splitlines()} if log else {})


def _show(name: str, answer: Answer, words: _Words) -> None:
    log = _log(answer, words).rstrip()
    if log:
        note(log)
    show(answer.body.decode(errors="replace"))
    if words.failure in answer.headers:
        value = _value(answer.body)
        reason = value.get("errorMessage", "") if isinstance(value, dict) else ""
        logged = name.partition(":")[0]
        note(f"torpor: {name} failed{f': {reason}' if reason else ''}; `torpor logs {logged}` shows its log.")
