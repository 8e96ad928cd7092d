"""`torpor deploy --web`: a folder or archive with the source of a server becomes a web service."""

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torpor.cli.client import Client, client
from torpor.cli.deploying import variables_of
from torpor.cli.output import bytes_text, note, show, show_json, working
from torpor.cli.packing import archive_of
from torpor.cli.web_guessing import NONE, Build, Source, Start, guess_build, guess_start
from torpor.cli.web_services import find_service, service_path
from torpor.cli.web_starting import await_start, instances
from torpor.contracts.web import limits
from torpor.contracts.web.names import checked_name
from torpor.contracts.web.routing import addresses
from torpor.model.errors import FunctionError, InvalidRequest

_PATIENCE = 300.0
_WAIT = 10
_SETTINGS = "X-Torpor-Settings"
_NODE_PACKAGES = "node_modules"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebWishes:
    """What was asked for; None leaves a setting as it is, or to the service's default."""

    name: str | None = None
    build: str | None = None
    start: str | None = None
    port: int | None = None
    memory: int | None = None
    timeout: float | None = None
    env: tuple[str, ...] = ()
    persistent: bool | None = None
    concurrency: int | None = None


def deploy_web(path: Path, wishes: WebWishes, *, endpoint: str | None, as_json: bool) -> int:
    """Create or update a service. Raises InvalidRequest, CallerError, FunctionError for a failed build, and
    PlatformError."""
    began = time.monotonic()
    variables = variables_of(wishes.env)
    name = checked_name(wishes.name or _name_of(path))
    server = client(endpoint)
    with working(f"Packing {path}"):
        archive = archive_of(
            path,
            packed_limit=limits.PACKAGE_MAX,
            unpacked_limit=limits.UNPACKED_MAX,
            without=_installed_anew(path, wishes),
        )
    with working(f"Looking for {name}"):
        existing = find_service(server, name)
    settings = _settings(wishes, archive, existing, quiet=as_json)
    if variables:
        settings["environment"] = ((existing or {}).get("environment") or {}) | variables
    headers = {"Content-Type": "application/zip", _SETTINGS: json.dumps(settings)}
    known = instances(server, existing["record"]) if existing else frozenset()
    with working(f"Sending {name}"):
        server.request("PUT", service_path(name), body=archive, headers=headers, patience=_PATIENCE)
    _follow(server, name, quiet=as_json)
    service = server.get(service_path(name))
    urls = addresses(name, server.endpoint)[0 if server.is_here else 1 :]  # N.localhost is always this machine
    if wishes.timeout is not None and service["timeout"] is None and not as_json:
        note("A persistent service has no request limit: --timeout counts once it is serverless.")
    if as_json:
        show_json(service | {"urls": urls})
    else:
        _tell(service, urls, "Updated" if existing else "Created", time.monotonic() - began)
    if service["kind"] == "persistent":
        await_start(server, service, known)
    return 0


def _installed_anew(path: Path, wishes: WebWishes) -> tuple[str, ...]:
    """Folders left out because the build makes them again."""
    package = path / "package.json"
    if wishes.build is not None or not package.is_file():
        return ()
    try:
        dependencies = json.loads(package.read_text()).get("dependencies")
    except (ValueError, AttributeError, OSError):
        return ()
    return (_NODE_PACKAGES,) if dependencies else ()


def _settings(wishes: WebWishes, archive: bytes, existing: dict[str, Any] | None, *, quiet: bool) -> dict[str, Any]:
    """What is sent: what was asked for, and the guesses for commands that nobody has said."""
    asked = {
        "build": wishes.build,
        "start": wishes.start,
        "port": wishes.port,
        "memory": wishes.memory,
        "timeout": wishes.timeout,
        "persistent": wishes.persistent,
        "concurrency": wishes.concurrency,
    }
    settings = {name: value for name, value in asked.items() if value is not None}
    said = set() if existing is None else {"build", "start"} - set(existing.get("guessed", ()))
    open_questions = {"build", "start"} - said - set(settings)
    source = Source(archive)
    guessed: dict[str, str] = {}
    if "start" in open_questions:
        start = _guess_start(source)
        guessed["start"] = start.command
        if not quiet:
            _say_start(start)
    if "build" in open_questions:
        build = guess_build(source)
        guessed["build"] = build.command
        if not quiet:
            _say_build(build)
    return settings | guessed | {"guessed": sorted(guessed)}


def _guess_start(source: Source) -> Start:
    try:
        return guess_start(source)
    except InvalidRequest as error:
        raise InvalidRequest(str(error) or NONE) from error


def _say_start(start: Start) -> None:
    note(f"{start.kind}, because {start.reason}; start command `{start.command}` (--start says otherwise).")


def _say_build(build: Build) -> None:
    if build.command:
        note(f"Build command `{build.command}`, because {build.reason} (--build says otherwise).")
    else:
        note("No build command, because no file names a dependency (--build says otherwise).")


def _follow(server: Client, name: str, *, quiet: bool) -> None:
    """Show the build's output until the deployment is over. Raises FunctionError if it failed."""
    after, stage, kept = 0, "", ""
    while stage not in ("succeeded", "failed"):
        query = {"after": str(after), "stage": stage, "wait": str(_WAIT)}
        news = server.request("GET", service_path(name, "deployment"), query=query).json
        after, stage = news["after"], news["stage"]
        if quiet:
            kept += news["output"]
        else:
            sys.stderr.write(news["output"])
            sys.stderr.flush()
    if stage == "failed":
        if kept:
            note(kept.rstrip())
        raise FunctionError(f"{news['message']} Nothing was changed.")


def _name_of(path: Path) -> str:
    resolved = path.resolve()
    stem = resolved.stem if resolved.suffix == ".zip" else resolved.name
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[: limits.NAME_MAX].rstrip("-")
    if not name:
        raise InvalidRequest(f"No name can be made of {path}: give one with --name.")
    return name


def _tell(service: dict[str, Any], urls: Sequence[str], done: str, seconds: float) -> None:
    timeout = "no request limit" if service["timeout"] is None else f"{service['timeout']:g} s"
    show(
        f"{done} {service['name']}: {service['kind']}, port {service['port']}, {service['memory']} MB, {timeout}, "
        f"{bytes_text(service['code_bytes'])} of code, in {seconds:.1f} s."
    )
    for url in urls:
        show(url)
