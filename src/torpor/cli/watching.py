"""`torpor logs` and `torpor ps`."""

from datetime import datetime
from typing import Any

from torpor.cli.client import ADMIN, Client, client, function_path
from torpor.cli.functions import missing
from torpor.cli.output import bytes_text, seconds_text, show, show_entries, show_json, working
from torpor.cli.web_services import find_service
from torpor.model.errors import NotFound

_PAGE = 500
_ALL = 10_000
"""More events of a function no server keeps at hand."""
_WAIT = 10
_PATIENCE = 30.0
_HEAD = ("ID", "FUNCTION", "VERSION", "PHASE", "AGE", "IDLE", "MEMORY", "INVOCATIONS", "PIDS")


def logs(name: str, *, follow: bool, endpoint: str | None, as_json: bool) -> int:
    """Print a function's log; with `follow`, until interrupted. Raises NotFound for a function that never existed."""
    server = client(endpoint)
    name = _logged_as(server, name)
    cursor, shown = "", 0
    while True:
        page = _page(server, name, cursor, wait=follow)
        for event in page["events"]:
            _show_event(event, as_json)
        shown += len(page["events"])
        before, cursor = cursor, str(page["cursor"])
        if cursor == before and not follow:
            break
    if not shown:
        _require(server, name)
    return 0


def environments(*, endpoint: str | None, as_json: bool) -> int:
    """Print the environments that exist now."""
    with working("Asking for the environments"):
        value = client(endpoint).get(f"{ADMIN}/environments")
    nothing = "No environment exists now: the next invocation makes one."
    show_entries(value, "environments", _HEAD, _row, nothing=nothing, as_json=as_json)
    return 0


def _logged_as(server: Client, name: str) -> str:
    """The name under which the server keeps the log: a function's own, or else that of the web service so called."""
    try:
        server.request("GET", f"{ADMIN}/logs", query={"function": name, "limit": "1"})
    except NotFound:
        service = find_service(server, name)
        if service is not None:
            return str(service["record"])
    return name


def _page(server: Client, name: str, cursor: str, *, wait: bool) -> dict[str, Any]:
    query = {"function": name, "limit": str(_PAGE if wait else _ALL)}
    query |= {"after": cursor} if cursor else {}
    query |= {"wait": str(_WAIT)} if wait else {}
    label = f"Waiting for {name} to log" if wait else f"Reading the log of {name}"
    try:
        with working(label):
            page: dict[str, Any] = server.request("GET", f"{ADMIN}/logs", query=query, patience=_PATIENCE).json
    except NotFound as error:
        raise missing(name, server) from error
    return page


def _require(server: Client, name: str) -> None:
    try:
        if "/" not in name:
            server.get(function_path(name))
    except NotFound as error:
        raise missing(name, server) from error


def _show_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(event)
        return
    time = datetime.fromtimestamp(event["time"] / 1000).astimezone()
    show(f"{time.isoformat(timespec='milliseconds')}  {event['message'].rstrip()}")


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        entry["id"],
        entry["function"],
        entry["version"],
        entry["phase"],
        seconds_text(entry.get("age_s")),
        seconds_text(entry.get("idle_s")),
        bytes_text(entry.get("memory_bytes")),
        str(entry.get("invocations", "-")),
        ",".join(map(str, entry.get("pids", ()))) or "-",
    )
