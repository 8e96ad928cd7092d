"""Links under which a function's package can be fetched for ten minutes, without any other credentials (9.7)."""

import hmac
from collections.abc import Callable
from urllib.parse import parse_qs

from torpor.contracts.lambda_ import limits
from torpor.model.errors import AccessDenied

PREFIX = "/_torpor/code/"


class CodeLinks:
    """Makes and checks the links; they hold for the server that has the same secret."""

    def __init__(self, secret: bytes, now: Callable[[], float], prefix: str = PREFIX) -> None:
        self._secret = secret
        self._now = now
        self._prefix = prefix

    def make(self, name: str, digest: str) -> str:
        """Path and query of a link to a function's present package."""
        expires = str(int(self._now() + limits.CODE_LINK_LIFETIME))
        path = f"{self._prefix}{name}/{digest}"
        return f"{path}?expires={expires}&signature={self._sign(path, expires)}"

    def open(self, path: str, query: str) -> tuple[str, str]:
        """The function's name and the package's digest that a link names. Raises AccessDenied."""
        values = parse_qs(query)
        expires, signature = values.get("expires", [""])[-1], values.get("signature", [""])[-1]
        if not hmac.compare_digest(self._sign(path, expires).encode(), signature.encode()):
            raise AccessDenied("The link's signature is not right.")
        if self._now() > float(expires):
            raise AccessDenied("The link has expired; ask for a new one with GetFunction.")
        name, _, digest = path.removeprefix(self._prefix).rpartition("/")
        return name, digest

    def _sign(self, path: str, expires: str) -> str:
        return hmac.digest(self._secret, f"{path}?{expires}".encode(), "sha256").hex()
