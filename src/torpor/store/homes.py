"""The home of archives on a local disk: `<digest>.zip`, whole or not there."""

import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress

from torpor.model.errors import NotFound
from torpor.store.disk import flush_path, translated, write

_SUFFIX = ".zip"
_INCOMING = ".incoming-"
_ARCHIVE = re.compile(r"[0-9a-f]{64}\.zip")


class DiskArchiveHome:
    """An `ArchiveHome` in a folder, which it makes and may share. Safe to share between threads."""

    def __init__(self, folder: str) -> None:
        self._root = os.path.abspath(folder)
        self._arriving: set[str] = set()
        with translated(self._root):
            os.makedirs(self._root, exist_ok=True)

    def put(self, digest: str, archive: bytes) -> None:
        name = f"{_INCOMING}{secrets.token_hex(8)}"
        self._arriving.add(name)
        try:
            with translated(self._root):
                self._store(f"{self._root}/{name}", digest, archive)
        finally:
            with suppress(OSError):
                os.unlink(f"{self._root}/{name}")
            self._arriving.discard(name)

    def get(self, digest: str) -> bytes:
        with translated(self._root):
            try:
                with open(self._path(digest), "rb") as source:
                    return source.read()
            except FileNotFoundError as error:
                raise NotFound(f"There is no package {digest}.", what="package") from error

    def keep_only(self, digests: Iterable[str]) -> None:
        kept = {f"{digest}{_SUFFIX}" for digest in digests}
        with translated(self._root):
            for name in os.listdir(self._root):
                unwanted = _ARCHIVE.fullmatch(name) and name not in kept
                if unwanted or (name.startswith(_INCOMING) and name not in self._arriving):
                    with suppress(FileNotFoundError):
                        os.unlink(f"{self._root}/{name}")

    def _store(self, place: str, digest: str, archive: bytes) -> None:
        write(place, archive)
        flush_path(place)
        os.rename(place, self._path(digest))
        flush_path(self._root)

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest}{_SUFFIX}"
