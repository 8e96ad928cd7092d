"""Without access keys a server trusts everyone on its machine, but not the web pages their browsers show.

A page may send requests to any address, and a name of its own may point at this one. So a request that says it comes
from a page, or that was meant for another host, is refused. That holds for the server's own pages too: what a service
shows below this server's address is not the operator's.
"""

from torpor.transport import Exchange

_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]", "host.torpor.internal", "169.254.100.2"})
_PREFIXES = ("stream-", "streaming-")
"""What clients put before the host for calls whose answer is a stream of events; such names belong to nobody."""


class SameMachine:
    """Tells the requests of local programs from those of web pages."""

    def __init__(self, host: str) -> None:
        self._names = _LOCAL | {host.lower(), f"[{host.lower()}]"}
        self._known: dict[str, bool] = {}
        """Host fields seen, so that each is taken apart once."""

    def refuses(self, exchange: Exchange) -> str:
        """Why the request is refused; empty if it is not."""
        headers = exchange.headers
        if headers.get("origin") or headers.get("sec-fetch-site", "none") != "none":
            return "Requests of web pages are not taken; set access keys to open the server to them."
        return self.refuses_host(exchange)

    def refuses_host(self, exchange: Exchange) -> str:
        """Why the request is refused if pages may send it too: it was meant for another host; empty if it was not."""
        host = exchange.headers.get("host")
        known = self._known.get(host)
        if known is None:
            known = self._is_own(host)
            if len(self._known) < 1024:
                self._known[host] = known
        return "" if known else f"This server is not {host}; call it by localhost or 127.0.0.1, or set access keys."

    def _is_own(self, host: str) -> bool:
        name = host.lower()
        if name.rpartition(":")[2].isdigit() and not name.endswith("]"):
            name = name.rpartition(":")[0]
        for prefix in _PREFIXES:
            if name.startswith(prefix) and name[len(prefix) :] in _LOCAL:
                return True
        return not name or name in self._names or name.endswith(".localhost")
