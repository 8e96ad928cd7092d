"""`torpor deploy`: a folder or archive becomes a function, or a function's new code."""

import base64
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torpor.cli.client import ADMIN, FUNCTIONS, Client, client, function_path
from torpor.cli.function_urls import open_url, url_of
from torpor.cli.guessing import Guess, guess
from torpor.cli.output import bytes_text, note, show, show_json, working
from torpor.cli.packing import archive_of
from torpor.cli.web_guessing import Source, guess_start
from torpor.model.errors import InvalidRequest, NotFound, PlatformError
from torpor.settings import resolve

_ROLE = "arn:aws:iam::000000000000:role/torpor"
_PATIENCE = 300.0
_READY_WITHIN = 120.0
_PAUSE = 0.1
_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What was asked for; None leaves a setting as it is, or to the service's default."""

    name: str | None = None
    runtime: str | None = None
    handler: str | None = None
    memory: int | None = None
    timeout: int | None = None
    env: tuple[str, ...] = ()
    url: bool = False
    """Give it a URL that is open to everyone."""


def deploy(path: Path, wishes: Wishes, *, endpoint: str | None, as_json: bool) -> int:
    """Create or update a function. Raises InvalidRequest, CallerError and PlatformError."""
    began = time.monotonic()
    variables = variables_of(wishes.env)
    name = wishes.name or _name_of(path)
    server = client(endpoint)
    with working(f"Packing {path}"):
        settings = resolve()
        archive = archive_of(path, packed_limit=settings.max_package, unpacked_limit=settings.max_unpacked)
    with working(f"Looking for {name}"):
        existing = _existing(server, name)
    configuration = _configuration(server, wishes, archive, existing, quiet=as_json)
    if variables:
        configuration["Environment"] = {"Variables": _present_variables(existing) | variables}
    with working(f"Deploying {name}"):
        _put(server, name, archive, configuration, existing)
        function = _wait_until_ready(server, name)
        url = open_url(server, name) if wishes.url else url_of(server, name)
    if as_json:
        show_json(function | {"FunctionUrl": url} if url else function)
    else:
        _tell(function, "Updated" if existing else "Created", time.monotonic() - began)
        if url:
            show(f"Its URL: {url}")
    return 0


def _configuration(
    server: Client, wishes: Wishes, archive: bytes, existing: dict[str, Any] | None, *, quiet: bool
) -> dict[str, Any]:
    given: dict[str, Any] = {"Runtime": wishes.runtime, "Handler": wishes.handler}
    given |= {"MemorySize": wishes.memory, "Timeout": wishes.timeout}
    configuration = {key: value for key, value in given.items() if value is not None}
    if existing or (wishes.runtime and wishes.handler):
        return configuration
    found = _guess(archive, wishes, _served(server))
    guessed = {"Runtime": found.runtime, "Handler": found.handler}
    if not quiet:
        chosen = guessed | configuration
        note(
            f"Taking runtime {chosen['Runtime']} and handler {chosen['Handler']}, for {found.reason} "
            "(--runtime and --handler say otherwise)."
        )
    return guessed | configuration


def _guess(archive: bytes, wishes: Wishes, served: list[str]) -> Guess:
    try:
        return guess(archive, wishes.runtime, served, wishes.handler)
    except InvalidRequest as error:
        try:
            start = guess_start(Source(archive))
        except InvalidRequest:
            raise error from None
        found = f"It looks like a web service ({start.kind}: {start.reason})"
        raise InvalidRequest(f"{error} {found}: `torpor deploy --web` deploys one.") from error


def _served(server: Client) -> list[str]:
    runtimes: list[str] = server.get(f"{ADMIN}/health")["runtimes"]
    return runtimes


def _existing(server: Client, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = server.get(function_path(name))["Configuration"]
    except NotFound:
        return None
    return found


def _put(
    server: Client, name: str, archive: bytes, configuration: dict[str, Any], existing: dict[str, Any] | None
) -> None:
    code = {"ZipFile": base64.b64encode(archive).decode()}
    if existing is None:
        new = {"FunctionName": name, "Role": _ROLE, "Code": code, **configuration}
        server.send("POST", FUNCTIONS, new, _PATIENCE)
        return
    server.send("PUT", function_path(name, "code"), code, _PATIENCE)
    if configuration:
        _wait_until_ready(server, name)
        server.send("PUT", function_path(name, "configuration"), configuration, _PATIENCE)


def _wait_until_ready(server: Client, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        function: dict[str, Any] = server.get(function_path(name, "configuration"))
        states = (function.get("State", "Active"), function.get("LastUpdateStatus", "Successful"))
        if "Failed" in states:
            reason = function.get("StateReason") or function.get("LastUpdateStatusReason") or "no reason given"
            raise PlatformError(f"{name} could not be made ready: {reason}.")
        if "Pending" not in states and "InProgress" not in states:
            return function
        time.sleep(_PAUSE)
    raise PlatformError(f"{name} was not ready within {_READY_WITHIN:.0f} s; `torpor list` shows whether it is now.")


def _present_variables(existing: dict[str, Any] | None) -> dict[str, str]:
    variables: dict[str, str] = (existing or {}).get("Environment", {}).get("Variables", {})
    return variables


def variables_of(given: tuple[str, ...]) -> dict[str, str]:
    """The variables of `--env KEY=VALUE` options. Raises InvalidRequest."""
    pairs = [entry.partition("=") for entry in given]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise InvalidRequest(f"--env {name} is not of the form KEY=VALUE.")
    return {name: value for name, _, value in pairs}


def _name_of(path: Path) -> str:
    resolved = path.resolve()
    stem = resolved.stem if resolved.suffix == ".zip" else resolved.name
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:_NAME_LENGTH]
    if not name:
        raise InvalidRequest(f"No function name can be made of {path}: give one with --name.")
    return name


def _tell(function: dict[str, Any], done: str, seconds: float) -> None:
    name = function["FunctionName"]
    show(
        f"{done} {name}: {function['Runtime']}, {function['Handler']}, {function['MemorySize']} MB, "
        f"{function['Timeout']} s, {bytes_text(function['CodeSize'])} of code, in {seconds:.1f} s."
    )
    show(f"Run it: torpor invoke {name}")
