"""Where functions may connect to: a value and one pure decision."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

HOST_ADDRESS = "169.254.100.2"
"""What stands for the host inside a sandbox (`host.torpor.internal`)."""

_NEVER = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, where most data centres hand a machine its credentials
        "100.100.100.200/32",  # others do it here
        "168.63.129.16/32",  # and here
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPolicy:
    """What functions may reach: everything the host can, but what is refused here.

    Always refused: the host's own addresses, link-local ones (metadata services) and what is no single machine's.
    """

    allow_loopback_ports: frozenset[int] = frozenset()
    """Ports of the host itself that functions may reach, as `host.torpor.internal` or at the host's addresses."""
    denied_networks: tuple[IPv4Network, ...] = ()
    """Networks refused on top of that."""
    resolvers: tuple[str, ...] = ()
    """Name servers asked, by address; empty for those of the host's `/etc/resolv.conf`."""

    def target(self, address: str, port: int, *, own: bool) -> str | None:
        """The address to connect to for a function that asked for `address`; None if that is refused.

        `own` says that the address is one of this host's.
        """
        if address == HOST_ADDRESS:
            return "127.0.0.1" if port in self.allow_loopback_ports else None
        asked = IPv4Address(address)
        if any(asked in network for network in (*_NEVER, *self.denied_networks)):
            return None
        return None if own and port not in self.allow_loopback_ports else address
