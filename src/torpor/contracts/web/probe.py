"""The question by which the platform finds out whether a server is there (contract 1.1).

It is asked inside the instance, again and again. A server that accepts before its application is loaded lets it wait,
so each try is given as long as the start may take.
"""

from dataclasses import dataclass

from torpor.contracts.web import limits

PATH = "/kaithhealth"
USER_AGENT = "torpor-probe/1"
"""By this users can filter it from their logs."""
HOSTS = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question, and how often it is put. Any complete answer, of any status, says that the server is there."""

    request: bytes
    """All of it, for a connection of its own."""
    hosts: tuple[str, ...]
    """Addresses to try in turn."""
    port: int
    period: float
    """Seconds between a refused try and the next."""
    patience: float
    """Seconds that one try may take."""


def probe(port: int, *, start_limit: float = limits.START_LIMIT) -> Probe:
    """The question for a server on this port."""
    head = (
        f"GET {PATH} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        f"User-Agent: {USER_AGENT}\r\n"
        "Accept: */*\r\n"
        "Connection: close\r\n\r\n"
    )
    return Probe(request=head.encode(), hosts=HOSTS, port=port, period=limits.PROBE_PERIOD, patience=start_limit)
