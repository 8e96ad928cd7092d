"""Packages: archives in their home, unpacked trees on the local disk."""

import hashlib
import os
from collections.abc import Iterable

from torpor.model.errors import InvalidPackage, NotFound, StoreUnavailable, TooLarge
from torpor.model.function import CodeRef
from torpor.store import disk
from torpor.store.homes import DiskArchiveHome
from torpor.store.ports import ArchiveHome, Tree
from torpor.store.trees import Trees


class DiskCodeStore:
    """A `CodeStore` with its trees in a folder, which it makes, and its archives in `home`, by default beside them.

    `bound` is the bytes of content that the trees may have together, 0 for any number; adopted trees, which cannot be
    made again, are then kept in the folder `built`. Safe to share between threads, not between processes. Every method
    raises StoreUnavailable when the disk or the home cannot do its part.
    """

    def __init__(self, folder: str, home: ArchiveHome | None = None, *, built: str = "", bound: int = 0) -> None:
        self._root = os.path.abspath(folder)
        with disk.translated(self._root):
            self._trees = Trees(folder, bound=bound if built else 0)
            self._built = Trees(built) if built else self._trees
        self._home = home or DiskArchiveHome(folder)

    def add(self, archive: bytes, *, unpacked_limit: int) -> CodeRef:
        digest = hashlib.sha256(archive).hexdigest()
        with disk.translated(self._root):
            if self._trees.present(digest):
                unpacked = disk.tree_bytes(self._trees.path(digest))
                _check(unpacked, unpacked_limit)
                self._home.put(digest, archive)
            else:
                with self._trees.unpacked(archive, unpacked_limit) as tree:
                    # Its archive comes first: a tree can be made again, and what is left over is swept.
                    self._home.put(digest, archive)
                    self._trees.publish(digest, tree)
                unpacked = tree.size
        return CodeRef(digest=digest, packed_bytes=len(archive), unpacked_bytes=unpacked)

    def adopt(self, tree: Tree, *, unpacked_limit: int) -> CodeRef:
        with disk.translated(self._root):
            unpacked = disk.tree_bytes(tree.folder)
            if unpacked > unpacked_limit:
                message = f"What was built has {unpacked} bytes, more than {unpacked_limit}."
                raise TooLarge(message, what="unpacked", limit=unpacked_limit)
            digest = disk.tree_digest(tree.folder)
            self._built.move_in(digest, tree.folder)
        return CodeRef(digest=digest, packed_bytes=unpacked, unpacked_bytes=unpacked)

    def folder(self, code: CodeRef) -> str:
        built = self._built.path(code.digest)
        return built if os.path.isdir(built) else self._trees.path(code.digest)

    def present(self, code: CodeRef) -> bool:
        return self._trees.present(code.digest) or self._built.present(code.digest)

    def fetch(self, code: CodeRef, in_use: Iterable[CodeRef]) -> str:
        if not self.present(code):
            archive = self._archive(code)
            with disk.translated(self._root):
                self._trees.make_room(code.unpacked_bytes, (used.digest for used in in_use))
                self._unpack(code, archive)
        return self.folder(code)

    def trim(self, in_use: Iterable[CodeRef]) -> None:
        with disk.translated(self._root):
            self._trees.make_room(0, (used.digest for used in in_use))

    def archive(self, code: CodeRef) -> bytes:
        archive = self._home.get(code.digest)
        if hashlib.sha256(archive).hexdigest() != code.digest:
            raise StoreUnavailable(f"The package {code.digest} is damaged in the code store; deploy it again.")
        return archive

    def keep_only(self, used: Iterable[CodeRef]) -> None:
        """Packages whose `add` has returned are removed too unless they are in `used`; trees in the making are not."""
        kept = {code.digest for code in used}
        with disk.translated(self._root):
            self._trees.keep_only(kept)
            self._built.keep_only(kept)
        self._home.keep_only(kept)

    def _archive(self, code: CodeRef) -> bytes:
        try:
            return self.archive(code)
        except NotFound as error:
            message = f"The package {code.digest} is missing in the code store; deploy the function again."
            raise StoreUnavailable(message) from error

    def _unpack(self, code: CodeRef, archive: bytes) -> None:
        try:
            with self._trees.unpacked(archive, code.unpacked_bytes) as tree:
                self._trees.publish(code.digest, tree)
        except (InvalidPackage, TooLarge) as error:
            message = f"The package {code.digest} cannot be unpacked any more ({error}); deploy the function again."
            raise StoreUnavailable(message) from error


def _check(unpacked: int, limit: int) -> None:
    if unpacked > limit:
        raise TooLarge(f"The package unpacks to more than {limit} bytes.", what="unpacked", limit=limit)
