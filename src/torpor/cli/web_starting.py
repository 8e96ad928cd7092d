"""Whether a service that always runs has come up after its deployment."""

import time
from typing import Any

from torpor.cli.client import ADMIN, Client
from torpor.cli.output import note, working
from torpor.model.errors import FunctionError, NotFound

_WITHIN = 75.0
"""Somewhat longer than a server may usually take to listen."""
_BEGUN_WITHIN = 10.0
_PERIOD = 0.2
_LINES = 10
_EVENTS = 10_000


def instances(server: Client, record: str) -> frozenset[str]:
    """The instances that a service has had lately, by the name under which the platform keeps it."""
    return frozenset(phase["environment"] for phase in _phases(server, record))


def await_start(server: Client, service: dict[str, Any], known: frozenset[str]) -> None:
    """Return once an instance besides the `known` ones is up; says so if that takes too long. Raises FunctionError if
    its start fails, after its last lines were shown."""
    name, record = service["name"], service["record"]
    with working(f"Starting {name}"):
        outcome = _outcome(server, record, known)
    if outcome == "":
        note(f"No instance of {name} is starting: is there memory for it? `torpor ps` shows what runs.")
    elif outcome == "starting":
        note(f"{name} is still starting: `torpor logs {name} -f` shows how far it is.")
    elif outcome != "success":
        for event in _events(server, record)[-_LINES:]:
            note(event["message"].rstrip())
        before = " Meanwhile the deployment before it goes on serving." if _living(server) & known else ""
        raise FunctionError(f"{name} is deployed but does not start; it is tried again, ever more seldom.{before}")


def _outcome(server: Client, record: str, known: frozenset[str]) -> str:
    """How the start ended, `starting` if it has not, empty if none has begun."""
    began, seen = time.monotonic(), ""
    while time.monotonic() - began < (_WITHIN if seen else _BEGUN_WITHIN):
        for phase in _phases(server, record):
            if phase["environment"] not in known:
                seen = "starting"
                if phase["phase"] == "init":
                    return str(phase["status"])
        time.sleep(_PERIOD)
    return seen


def _living(server: Client) -> frozenset[str]:
    return frozenset(entry["id"] for entry in server.get(f"{ADMIN}/environments")["environments"])


def _phases(server: Client, record: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = server.request("GET", f"{ADMIN}/phases", query={"function": record}).json[
            "phases"
        ]
    except NotFound:
        return []
    return found


def _events(server: Client, record: str) -> list[dict[str, Any]]:
    query = {"function": record, "limit": str(_EVENTS)}
    found: list[dict[str, Any]] = server.request("GET", f"{ADMIN}/logs", query=query).json["events"]
    return found
