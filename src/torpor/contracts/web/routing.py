"""Which service a request is for: by its host, `N.localhost`, or else by its path, `/services/N/…`.

The host goes first, so that a service reached by its own name may use every path, `/services/` too. Answered for every
request of a server, so hosts are taken apart once.
"""

import re
from functools import lru_cache

PREFIX = "/services/"
_HOST = re.compile(r"([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)\.localhost\.?(?::[0-9]+)?", re.IGNORECASE)
_PATH = re.compile(r"/services/([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)(?=[/?]|$)")
_LOCATION = re.compile(rb"^(location:[ \t]*)(https?://[^/\r\n]+)?(/(?!/)[^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_HOSTS_KEPT = 1024
_HOST_LENGTH = 80
"""Characters that no longer host of a service has."""

Route = tuple[str, str]
"""The service's name, and path and query as its server sees them."""


def route(host: str, target: str) -> Route | None:
    """Where a request goes, by its Host field and its path with the query; None if it is for no service."""
    name = named_by_host(host) if len(host) <= _HOST_LENGTH else ""
    if name:
        return name, target
    found = _PATH.match(target)
    if found is None:
        return None
    rest = target[found.end() :]
    return found[1], rest if rest[:1] == "/" else f"/{rest}"


@lru_cache(_HOSTS_KEPT)
def named_by_host(host: str) -> str:
    """The service that a Host field names; empty if it names none."""
    found = _HOST.fullmatch(host)
    return found[1].lower() if found else ""


def prefix(name: str) -> str:
    """What is taken off the path of a request to a service that was named by it."""
    return PREFIX + name


def completed(name: str, target: str) -> str:
    """Where a page asked for as `/services/N` really is, so that its relative links hold; empty if it is there."""
    rest = target[len(PREFIX) + len(name) :]
    return "" if rest[:1] == "/" else f"{PREFIX}{name}/{rest}"


def relocated(lines: bytes, name: str, host: str) -> bytes:
    """Header lines of an answer whose Location leads to a path of the same host: there, the service's paths begin with
    its prefix. One that has it already, or is below `/services/`, is as its server wants it."""
    own = prefix(name).encode()

    def moved(found: re.Match[bytes]) -> bytes:
        field, place, path = found[1], found[2] or b"", found[3]
        if (
            path.startswith(PREFIX.encode())
            or own + b"/" in path
            or (place and place.lower().partition(b"//")[2] != host.lower().encode())
        ):
            return found[0]
        return b"%b%b%b%b" % (field, place, own, path)

    return _LOCATION.sub(moved, lines)


def addresses(name: str, server: str) -> tuple[str, str]:
    """Both addresses of a service on the server at `server`, an address like `http://127.0.0.1:8700`."""
    scheme, _, place = server.rstrip("/").partition("://")
    colon, port = re.fullmatch(r".*?(?:(:)([0-9]+))?", place).groups()  # type: ignore[union-attr]
    return f"{scheme}://{name}.localhost{colon or ''}{port or ''}/", f"{scheme}://{place}{PREFIX}{name}/"
