"""Functions of Function Compute as the command line names them: `fc/NAME`, or `fc/SERVICE/NAME`."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from torpor.cli.client import Client
from torpor.cli.output import bytes_text, show_columns
from torpor.contracts.function_compute.names import SPACE, Generation
from torpor.model.errors import InvalidRequest, NotFound

_HEAD = ("FUNCTION COMPUTE", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "CODE", "MODIFIED")
_PAGE = "100"
_CURRENT = f"/{Generation.V3}/functions"
_SERVICES = f"/{Generation.CLASSIC}/services"


def is_fc(name: str) -> bool:
    """Does a name say that the function is one of Function Compute?"""
    return name.startswith(f"{SPACE}/")


def fc_path(name: str, *rest: str) -> str:
    """The path of a function's resource. Raises InvalidRequest for a name that none can have."""
    parts = [quote(part, safe="") for part in name.split("/")[1:]]
    if not all(parts) or len(parts) not in (1, 2):
        raise InvalidRequest(f"{name} names no function: write {SPACE}/NAME, or {SPACE}/SERVICE/NAME.")
    place = _CURRENT if len(parts) == 1 else f"{_SERVICES}/{parts[0]}/functions"
    return "/".join((place, parts[-1], *rest))


def fc_named(server: Client, name: str) -> str:
    """The whole name of the function that `name` may mean; empty if there is none."""
    wanted = f"{SPACE}/{name}"
    try:
        server.get(fc_path(wanted))
    except (NotFound, InvalidRequest):
        return ""
    return wanted


def all_fc_functions(server: Client) -> list[dict[str, Any]]:
    """Every one, with its whole `name`; none on a server that does not know them."""
    try:
        return [*_functions(server, _CURRENT, SPACE), *_of_services(server)]
    except NotFound:
        return []


def show_fc_functions(functions: Sequence[dict[str, Any]]) -> None:
    """A table of them."""
    show_columns(_HEAD, [_row(function) for function in functions])


def _of_services(server: Client) -> Iterator[dict[str, Any]]:
    for service in _pages(server, _SERVICES, "services"):
        name = service["serviceName"]
        yield from _functions(server, f"{_SERVICES}/{quote(name, safe='')}/functions", f"{SPACE}/{name}")


def _functions(server: Client, path: str, prefix: str) -> Iterator[dict[str, Any]]:
    for function in _pages(server, path, "functions"):
        yield function | {"name": f"{prefix}/{function['functionName']}"}


def _pages(server: Client, path: str, kind: str) -> Iterator[dict[str, Any]]:
    query = {"limit": _PAGE}
    while True:
        page = server.request("GET", path, query=query).json
        yield from page[kind]
        if not page.get("nextToken"):
            return
        query["nextToken"] = page["nextToken"]


def _row(function: dict[str, Any]) -> tuple[str, ...]:
    return (
        function["name"],
        function["runtime"],
        function.get("handler") or "-",
        f"{function['memorySize']} MB",
        f"{function['timeout']} s",
        bytes_text(function["codeSize"]),
        function["lastModifiedTime"].rstrip("Z").replace("T", " "),
    )
