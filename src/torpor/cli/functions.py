"""`torpor list` and `torpor delete`."""

from typing import Any

from torpor.cli.client import FUNCTIONS, Client, client, function_path
from torpor.cli.output import bytes_text, show, show_columns, show_json, working
from torpor.cli.web_services import all_services, service_path, show_services
from torpor.model.errors import NotFound

_PAGE = 50
_HEAD = ("NAME", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "CODE", "MODIFIED")


def list_functions(*, endpoint: str | None, as_json: bool) -> int:
    """Print every function and every web service."""
    server = client(endpoint)
    with working("Asking for the functions"):
        found, services = _all(server), all_services(server)
    if as_json:
        show_json({"functions": found, "services": services})
        return 0
    if found:
        show_columns(_HEAD, [_row(function) for function in found])
    if found and services:
        show("")
    if services:
        show_services(services)
    if not found and not services:
        show("There are no functions yet: `torpor deploy PATH` makes one.")
    return 0


def delete(name: str, *, endpoint: str | None, as_json: bool) -> int:
    """Delete a function, or the web service of that name if there is no function. Raises NotFound."""
    server = client(endpoint)
    try:
        with working(f"Deleting {name}"):
            try:
                server.request("DELETE", function_path(name))
            except NotFound:
                server.request("DELETE", service_path(name))
    except NotFound as error:
        raise missing(name) from error
    if as_json:
        show_json({"deleted": name})
    else:
        show(f"Deleted {name}.")
    return 0


def missing(name: str) -> NotFound:
    """The error for a function that does not exist, and no web service either."""
    return NotFound(f"There is no function {name}: `torpor list` shows those there are.")


def _all(server: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = {"MaxItems": str(_PAGE)}
    while True:
        page = server.request("GET", f"{FUNCTIONS}/", query=query).json
        found += page["Functions"]
        if not page.get("NextMarker"):
            return found
        query["Marker"] = page["NextMarker"]


def _row(function: dict[str, Any]) -> tuple[str, ...]:
    return (
        function["FunctionName"],
        function.get("Runtime", "-"),
        function.get("Handler", "-"),
        f"{function['MemorySize']} MB",
        f"{function['Timeout']} s",
        bytes_text(function["CodeSize"]),
        function["LastModified"][:19].replace("T", " "),
    )
