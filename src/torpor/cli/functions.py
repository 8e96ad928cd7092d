"""`torpor list` and `torpor delete`."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from torpor.cli.client import FUNCTIONS, Client, client, function_path
from torpor.cli.fc_functions import all_fc_functions, fc_named, fc_path, is_fc, show_fc_functions
from torpor.cli.output import bytes_text, show, show_columns, show_json, working
from torpor.cli.web_services import all_services, find_service, service_path, show_services
from torpor.contracts.web.routing import addresses
from torpor.model.errors import NotFound

_PAGE = 50
_HEAD = ("NAME", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "CODE", "MODIFIED")


def list_functions(*, endpoint: str | None, as_json: bool) -> int:
    """Print every function and every web service."""
    server = client(endpoint)
    with working("Asking for the functions"):
        found, of_fc, services = _all(server), all_fc_functions(server), all_services(server)
    if as_json:
        show_json({"functions": found, "function_compute": of_fc, "services": services})
        return 0
    shown = False
    for kind, table in ((found, _show_functions), (of_fc, show_fc_functions), (services, show_services)):
        if kind:
            if shown:
                show("")
            table(kind)
            shown = True
    if not shown:
        show("There are no functions yet: `torpor deploy PATH` makes one.")
    return 0


def _show_functions(functions: Sequence[dict[str, Any]]) -> None:
    show_columns(_HEAD, [_row(function) for function in functions])


def delete(name: str, *, endpoint: str | None, as_json: bool) -> int:
    """Delete a function, one of its versions or aliases, or the web service of that name if there is no function.

    Raises NotFound."""
    server = client(endpoint)
    try:
        with working(f"Deleting {name}"):
            _delete(server, name)
    except NotFound as error:
        raise missing(name, server) from error
    if as_json:
        show_json({"deleted": name})
    else:
        show(f"Deleted {name}.")
    return 0


def _delete(server: Client, name: str) -> None:
    if is_fc(name):
        server.request("DELETE", fc_path(name))
        return
    if "/" in name:
        raise NotFound(name)
    base, colon, qualifier = name.partition(":")
    if colon and ":" not in qualifier and not qualifier.isdecimal() and not qualifier.startswith("$"):
        alias = function_path(base, "aliases", quote(qualifier, safe=""))
        server.get(alias)  # the service passes over what is not there
        server.request("DELETE", alias)
        return
    try:
        server.request("DELETE", function_path(name))
    except NotFound:
        server.request("DELETE", service_path(name))


def missing(name: str, server: Client) -> NotFound:
    """The error for a function that does not exist; it says what else may be meant."""
    base, colon, qualifier = name.partition(":")
    if colon and _exists(server, base):
        return NotFound(f"{base} has no version or alias {qualifier}.")
    if not is_fc(name) and (meant := fc_named(server, name)):
        return NotFound(f"There is no function {name}, but one of Function Compute: {meant}.")
    return NotFound(f"There is no function {name}: `torpor list` shows those there are.")


def missing_to_run(name: str, server: Client) -> NotFound:
    """The same for what cannot be invoked: a web service is asked by HTTP."""
    if not is_fc(name) and find_service(server, name) is not None:
        return NotFound(f"{name} is a web service: curl {addresses(name, server.endpoint)[1]}")
    return missing(name, server)


def _exists(server: Client, name: str) -> bool:
    try:
        server.get(fc_path(name) if is_fc(name) else function_path(name))
    except NotFound:
        return False
    return True


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
