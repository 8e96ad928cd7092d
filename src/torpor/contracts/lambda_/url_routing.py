"""Which function URL a request is for: by host, `ID.lambda-url.REGION.…`, or else by path, `/_urls/ID/…` (9.10).

Answered for every request of a server, so whatever is for no URL is told by its look.
"""

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import quote, urlsplit

PREFIX = "/_urls/"
_MARK = ".lambda-url."
_SHORTEST = len("x.lambda-url.us-east-1.x")
_HOST = re.compile(r"([^.]*)\.lambda-url\..*")
_UNSAFE = re.compile(r"[^!-~]+")


class UrlRoute(NamedTuple):
    """Where a request goes."""

    identity: str
    """The URL's id as the request names it; whether there is such a URL is another question."""
    target: str
    """Path and query as the function sees them, percent-encoding kept."""
    by_path: bool


def names_url(host: str) -> bool:
    """Does a Host field name a function URL?"""
    return len(host) >= _SHORTEST and _MARK in host.lower()


def url_route(host: str, target: str) -> UrlRoute | None:
    """The URL that a request is for, by its Host field and its path with the query; None if it is for none."""
    if names_url(host):
        found = _HOST.fullmatch(host.lower())
        return UrlRoute(found[1] if found else "", _well_formed(target), False)
    if not target.startswith(PREFIX):
        return None
    path, question, query = target[len(PREFIX) :].partition("?")
    identity, _, rest = path.partition("/")
    return UrlRoute(identity, _well_formed(f"/{rest}{question}{query}"), True)


def _well_formed(target: str) -> str:
    """What may not stand in a target is percent-encoded; what is encoded stays as it is."""
    return _UNSAFE.sub(lambda found: quote(found[0].encode("latin-1", "replace"), safe=""), target)


def host_name(identity: str, region: str) -> str:
    """The name of a URL's host on the machine of the server."""
    return f"{identity}{_MARK}{region}.localhost"


def address(identity: str, region: str, base: str, domain: str = "") -> str:
    """The URL as callers use it. `base` is how the caller who asks for it has reached the server, `domain` the address
    below which URLs have names of their own, if the server's owner has said one: both as in `http://HOST:PORT`.

    Without such names, the path is what works wherever the server is reached by another name than this machine's own.
    """
    if domain:
        there = urlsplit(domain)
        return f"{there.scheme}://{identity}{_MARK}{region}.{there.netloc}/"
    here = urlsplit(base)
    if not _is_this_machine(here.hostname or ""):
        return f"{here.scheme}://{here.netloc}{PREFIX}{identity}/"
    port = here.netloc.rpartition(":")[2]
    return f"{here.scheme}://{host_name(identity, region)}{f':{port}' if port.isdecimal() else ''}/"


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    return found.is_loopback or found.is_unspecified
