"""Web services as the command line shows them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from torpor.cli.client import ADMIN, Client
from torpor.cli.output import bytes_text, show_columns
from torpor.model.errors import NotFound

SERVICES = f"{ADMIN}/services"
_HEAD = ("SERVICE", "KIND", "PORT", "MEMORY", "TIMEOUT", "CONCURRENCY", "CODE", "MODIFIED", "START COMMAND")


def service_path(name: str, *rest: str) -> str:
    """The path of a service's resource."""
    return "/".join((SERVICES, quote(name, safe=""), *rest))


def find_service(server: Client, name: str) -> dict[str, Any] | None:
    """The service of this name, if there is one."""
    try:
        found: dict[str, Any] = server.get(service_path(name))
    except NotFound:
        return None
    return found


def all_services(server: Client) -> list[dict[str, Any]]:
    """Every service; none on a server that knows no services."""
    try:
        found: list[dict[str, Any]] = server.get(SERVICES)["services"]
    except NotFound:
        return []
    return found


def show_services(services: Sequence[dict[str, Any]]) -> None:
    """A table of them."""
    show_columns(_HEAD, [_row(service) for service in services])


def _row(service: dict[str, Any]) -> tuple[str, ...]:
    timeout = service["timeout"]
    return (
        service["name"],
        service["kind"],
        str(service["port"]),
        f"{service['memory']} MB",
        "-" if timeout is None else f"{timeout:g} s",
        str(service["concurrency"]),
        bytes_text(service["code_bytes"]),
        datetime.fromtimestamp(service["modified"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
        service["start"],
    )
