"""The home of archives in an object store, reached over the network by whatever protocol its URL names."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import from_url

from torpor.model.errors import NotFound, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

_CLIENT: "ClientConfig" = {
    "allow_http": True,
    "connect_timeout": timedelta(seconds=5),
    "timeout": timedelta(seconds=120),
}
"""The last is for a whole request, its body of some hundred megabytes included."""
_RETRIES: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=60)}
_REASONS = (
    ((PermissionDeniedError, UnauthenticatedError, PermissionError), "refuses these keys"),
    ((FileNotFoundError,), "does not exist"),
    ((UnknownConfigurationKeyError, InvalidPathError, ValueError), "has a malformed address"),
)


class ObjectArchiveHome:
    """An `ArchiveHome` below `url` (`<protocol>://<bucket>/<prefix>`), which must be this server's own.

    Safe to share between threads. Without a key, those that the server's environment offers are used.
    """

    def __init__(self, url: str, *, endpoint: str = "", key: tuple[str, str] | None = None, region: str = "") -> None:
        self._url = url
        config: S3Config = {}
        if endpoint:
            config["endpoint"] = endpoint
        if region:
            config["region"] = region
        if key is not None:
            config["access_key_id"], config["secret_access_key"] = key
        with self._translated():
            self._store = from_url(url, config=config, client_options=_CLIENT, retry_config=_RETRIES)

    def put(self, digest: str, archive: bytes) -> None:
        with self._translated():
            obstore.put(self._store, _name(digest), archive)

    def get(self, digest: str) -> bytes:
        with self._translated():
            try:
                return bytes(obstore.get(self._store, _name(digest)).bytes())
            except FileNotFoundError as error:
                raise NotFound(f"There is no package {digest}.", what="package") from error

    def keep_only(self, digests: Iterable[str]) -> None:
        kept = {_name(digest) for digest in digests}
        with self._translated():
            for batch in obstore.list(self._store):
                unwanted = [item["path"] for item in batch if _is_archive(item["path"]) and item["path"] not in kept]
                if unwanted:
                    obstore.delete(self._store, unwanted)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            reason = next((text for kinds, text in _REASONS if isinstance(error, kinds)), "does not answer")
            raise StoreUnavailable(f"The code store {self._url} {reason}; check its address and keys.") from error


def _name(digest: str) -> str:
    return f"{digest}.zip"


def _is_archive(path: str) -> bool:
    return len(path) == len(_name("0" * 64)) and path.endswith(".zip")
