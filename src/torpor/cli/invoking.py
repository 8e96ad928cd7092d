"""`torpor invoke`."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

from torpor.cli.client import Answer, client, function_path
from torpor.cli.functions import missing
from torpor.cli.output import note, show, show_json, working
from torpor.model.errors import InvalidRequest, NotFound

_PATIENCE = 960.0
"""Longer than the longest function may run with its init."""


def invoke(name: str, payload: str, *, tail: bool, endpoint: str | None, as_json: bool) -> int:
    """Run a function once: its result on standard output, 1 if it failed. Raises NotFound, InvalidRequest."""
    body = _payload(payload)
    headers = {"Content-Type": "application/json", "X-Amz-Log-Type": "Tail" if tail else "None"}
    path = function_path(name, "invocations")
    try:
        with working(f"Running {name}"):
            answer = client(endpoint).request("POST", path, body=body, headers=headers, patience=_PATIENCE)
    except NotFound as error:
        raise missing(name) from error
    failure = answer.headers.get("x-amz-function-error", "")
    if as_json:
        show_json(_as_value(answer, failure))
    else:
        _show(name, answer, failure)
    return 1 if failure else 0


def _payload(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return given.encode()
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"The payload file {given[1:]} cannot be read: {error.strerror}.") from error


def _log(answer: Answer) -> str:
    return base64.b64decode(answer.headers.get("x-amz-log-result", "")).decode(errors="replace")


def _value(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _as_value(answer: Answer, failure: str) -> dict[str, Any]:
    value = {"status": answer.status, "version": answer.headers.get("x-amz-executed-version", "")}
    value |= {"error": failure or None, "payload": _value(answer.body)}
    log = _log(answer)
    return value | ({"log": log.splitlines()} if log else {})


def _show(name: str, answer: Answer, failure: str) -> None:
    log = _log(answer).rstrip()
    if log:
        note(log)
    show(answer.body.decode(errors="replace"))
    if failure:
        value = _value(answer.body)
        reason = value.get("errorMessage", "") if isinstance(value, dict) else ""
        note(f"torpor: {name} failed{f': {reason}' if reason else ''}; `torpor logs {name}` shows its log.")
