"""Who a request to a function URL comes from: whoever connected, or whom a proxy that is believed speaks for (9.10)."""

import ipaddress
from dataclasses import dataclass

from torpor.contracts.forwarding import LOCAL_PEERS
from torpor.contracts.http import RequestHeaders

TOLD = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"})
"""Fields in which only a proxy that is believed may say something."""
_LOOPBACK = "127.0.0.1"
_PORTS = {"https": "443", "http": "80"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Whom a request comes from and how it came."""

    address: str
    chain: str
    """The addresses it has passed, as `x-forwarded-for` tells them."""
    scheme: str
    port: str
    believed: bool
    """A program of this machine handed it on, and what it says of the request holds."""


def source_of(peer: str, headers: RequestHeaders) -> Source:
    """`peer` is the address that has connected; empty for a local socket."""
    believed, own = peer in LOCAL_PEERS, peer or _LOOPBACK
    chain = _told(headers, "x-forwarded-for") if believed else ""
    scheme = _last(_told(headers, "x-forwarded-proto")).lower() if believed else ""
    port = _last(_told(headers, "x-forwarded-port")) if believed else ""
    scheme = scheme if scheme in _PORTS else "http"
    return Source(
        address=_address(_last(chain)) or own,
        chain=chain or own,
        scheme=scheme,
        port=port if port.isdecimal() else _port_of(headers.get("host"), scheme),
        believed=believed,
    )


def _told(headers: RequestHeaders, wanted: str) -> str:
    return ", ".join(value for name, value in headers.items() if name.lower() == wanted and value)


def _last(listed: str) -> str:
    """What the nearest proxy has added: those before it may be the caller's own inventions."""
    return listed.rpartition(",")[2].strip()


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return ""


def _port_of(host: str, scheme: str) -> str:
    port = host.rpartition(":")[2]
    return port if port.isdecimal() and ":" in host else _PORTS[scheme]
