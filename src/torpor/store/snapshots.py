"""Snapshots on disk, encrypted: what a process held in memory may be secrets.

A file is a head and pieces of up to a MiB, each sealed with AES-GCM under one key and a nonce that stands for its
place in the file; pieces of nothing but zeros are named in the head instead. Reading gives files in memory.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from torpor.model.errors import NotFound, StoreUnavailable
from torpor.store.disk import translated

KEY_BYTES = 32
_MAGIC = b"torpor snapshot 1\n"
_PIECE = 1024 * 1024
_TAG = 16
_PREFIX = 8
_SIZE = 4
_ZEROS = bytes(_PIECE)
_SUFFIX = ".snapshot"


def read_key(path: str) -> bytes:
    """The key in this file, which is made if it is not there. Raises StoreUnavailable."""
    with translated(path):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            with open(path, "rb") as file:
                key = file.read(KEY_BYTES + 1)
        else:
            key = secrets.token_bytes(KEY_BYTES)
            with open(descriptor, "wb") as file:
                file.write(key)
    if len(key) != KEY_BYTES:
        raise StoreUnavailable(f"The file {path} is no key of {KEY_BYTES} bytes; snapshots cannot be read or written.")
    return key


class SnapshotStore:
    """Snapshots by name, `[a-z0-9-]+`. Its calls take a moment: they belong in a thread."""

    def __init__(self, folder: str, key: bytes) -> None:
        self._folder = folder
        self._cipher = AESGCM(key)

    def save(self, name: str, parts: Mapping[str, int], about: Mapping[str, str]) -> None:
        """Keep the content of these open files, and what is to be known before their use. Raises StoreUnavailable."""
        path = self._path(name)
        with translated(path):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            making = f"{path}.{secrets.token_hex(8)}"
            try:
                with open(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    for piece in self._sealed(parts, about):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(making, path)
            except BaseException:
                os.unlink(making)
                raise

    def about(self, name: str) -> dict[str, str]:
        """What was said of it. Raises NotFound, and StoreUnavailable if it is damaged or sealed with another key."""
        with translated(self._path(name)), self._open(name) as file:
            return dict(self._head(file, _Nonces(file.read(_PREFIX)), name)["about"])

    def load(self, name: str) -> dict[str, int]:
        """Its parts as files in memory, the caller's to close. Raises as `about` does."""
        made: dict[str, int] = {}
        try:
            with translated(self._path(name)), self._open(name) as file:
                nonces = _Nonces(file.read(_PREFIX))
                for part, size, zeros in self._head(file, nonces, name)["parts"]:
                    made[part] = os.memfd_create(part, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                    self._unseal(file, nonces, name, made[part], size, frozenset(zeros))
        except BaseException:
            for descriptor in made.values():
                os.close(descriptor)
            raise
        return made

    def remove(self, name: str) -> None:
        """Nothing happens if it is not there. Raises StoreUnavailable."""
        with translated(self._path(name)):
            try:
                os.unlink(self._path(name))
            except FileNotFoundError:
                return

    def names(self) -> list[str]:
        """Of all there are; what an end half-way left behind goes. Raises StoreUnavailable."""
        with translated(self._folder):
            if not os.path.isdir(self._folder):
                return []
            found = os.listdir(self._folder)
            for left in found:
                if not left.endswith(_SUFFIX):
                    os.unlink(os.path.join(self._folder, left))
        return [name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)]

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name + _SUFFIX)

    def _open(self, name: str) -> BinaryIO:
        try:
            file = open(self._path(name), "rb")  # noqa: SIM115
        except FileNotFoundError:
            raise NotFound(f"There is no snapshot {name}.", what="snapshot") from None
        if file.read(len(_MAGIC)) != _MAGIC:
            file.close()
            raise _damaged(name)
        return file

    def _sealed(self, parts: Mapping[str, int], about: Mapping[str, str]) -> Iterator[bytes]:
        prefix = secrets.token_bytes(_PREFIX)
        nonces = _Nonces(prefix)
        sizes = {part: os.fstat(descriptor).st_size for part, descriptor in parts.items()}
        empty = {part: _zeros(descriptor, sizes[part]) for part, descriptor in parts.items()}
        described = [[part, sizes[part], empty[part]] for part in parts]
        head = json.dumps({"about": dict(about), "parts": described}).encode()
        yield _MAGIC + prefix
        yield self._piece(nonces, head)
        for part, descriptor in parts.items():
            left_out = frozenset(empty[part])
            for number in range(_count(sizes[part])):
                if number not in left_out:
                    yield self._piece(nonces, os.pread(descriptor, _PIECE, number * _PIECE))

    def _piece(self, nonces: "_Nonces", data: bytes) -> bytes:
        nonce = nonces.next()
        sealed = self._cipher.encrypt(nonce, data, nonce)
        return len(sealed).to_bytes(_SIZE, "big") + sealed

    def _head(self, file: BinaryIO, nonces: "_Nonces", name: str) -> dict[str, Any]:
        head: dict[str, Any] = json.loads(self._read(file, nonces, name, 1 << 28))
        return head

    def _unseal(
        self, file: BinaryIO, nonces: "_Nonces", name: str, target: int, size: int, zeros: frozenset[int]
    ) -> None:
        os.ftruncate(target, size)
        for number in range(_count(size)):
            if number not in zeros:
                os.pwrite(target, self._read(file, nonces, name, _PIECE), number * _PIECE)

    def _read(self, file: BinaryIO, nonces: "_Nonces", name: str, most: int) -> bytes:
        size = int.from_bytes(file.read(_SIZE), "big")
        nonce = nonces.next()
        if not _TAG <= size <= most + _TAG:
            raise _damaged(name)
        try:
            return self._cipher.decrypt(nonce, file.read(size), nonce)
        except InvalidTag:
            raise _damaged(name) from None


class _Nonces:
    """One for each piece of a file, in order: a piece that is moved, left out or of another file cannot be read."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._count = 0

    def next(self) -> bytes:
        self._count += 1
        return self._prefix + self._count.to_bytes(4, "big")


def _count(size: int) -> int:
    return -(-size // _PIECE)


def _zeros(descriptor: int, size: int) -> list[int]:
    """The pieces of a file that hold nothing."""
    pieces = range(_count(size))
    return [number for number in pieces if _is_zero(os.pread(descriptor, _PIECE, number * _PIECE))]


def _is_zero(piece: bytes) -> bool:
    return piece == _ZEROS[: len(piece)]


def _damaged(name: str) -> StoreUnavailable:
    return StoreUnavailable(f"The snapshot {name} cannot be read: it is damaged, or was sealed with another key.")
