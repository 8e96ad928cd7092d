"""Unpacked packages on the local disk, within a bound: what has not been used for longest goes first.

A tree is built under a temporary name and renamed when it is whole: one that is there is complete. Looking whether it
is there counts as using it, so nothing that was just looked for is taken away under the eyes of who looked.
"""

import itertools
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from torpor.store import disk
from torpor.store.unpacking import unpack

_UNFINISHED = ".unfinished-"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTree:
    """A whole tree that is not in its place yet."""

    place: str
    size: int
    """Bytes of content."""


class Trees:
    """The trees below a folder, which it makes. `bound` is in bytes of content, 0 for none.

    Safe to share between threads. Raises OSError when the disk fails.
    """

    def __init__(self, folder: str, *, bound: int = 0) -> None:
        self._root = os.path.abspath(folder)
        self._bound = bound
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._uses: dict[str, int] = {}
        """When each tree was last looked for, as a number that only grows."""
        self._count = itertools.count(1)
        os.makedirs(self._root, exist_ok=True)

    def path(self, digest: str) -> str:
        """Where the tree is, or would be."""
        return f"{self._root}/{digest}"

    def present(self, digest: str) -> bool:
        """Is the tree there? It counts as used now."""
        with self._lock:
            self._uses[digest] = next(self._count)
            return os.path.isdir(self.path(digest))

    @contextmanager
    def unpacked(self, archive: bytes, limit: int) -> Iterator[NewTree]:
        """A tree of an archive, until the block ends; `publish` makes it last. Raises what `unpack` raises."""
        with self._workplace() as place:
            tree = f"{place}/tree"
            os.mkdir(tree)
            os.chmod(tree, 0o755)
            size = unpack(archive, tree, limit=limit)
            disk.flush(place)
            yield NewTree(place=tree, size=size)

    def move_in(self, digest: str, folder: str) -> None:
        """Take over a tree as it is, durably; it may lie on another file system."""
        with self._workplace() as place:
            # Moved in first: only what is whole may get its name.
            shutil.move(folder, f"{place}/tree")
            disk.flush(place)
            self.publish(digest, NewTree(place=f"{place}/tree", size=disk.tree_bytes(f"{place}/tree")))
            disk.flush_path(self._root)

    def publish(self, digest: str, tree: NewTree) -> None:
        """Put a new tree in its place, unless another was faster."""
        with self._lock:
            self._sizes[digest] = tree.size
            self._uses[digest] = next(self._count)
            if not os.path.isdir(self.path(digest)):
                os.rename(tree.place, self.path(digest))

    def make_room(self, wanted: int, spared: Iterable[str]) -> None:
        """Remove trees not in `spared` until `wanted` more bytes are within the bound, as far as that goes."""
        if not self._bound:
            return
        known, kept = dict(self._uses), frozenset(spared)
        sizes = {digest: self._size(digest) for digest in self._digests()}
        excess = sum(sizes.values()) + wanted - self._bound
        for digest in sorted(sizes.keys() - kept, key=lambda digest: known.get(digest, 0)):
            if excess <= 0:
                return
            if self._remove(digest, known.get(digest, 0)):
                excess -= sizes[digest]

    def keep_only(self, digests: Iterable[str]) -> None:
        """Remove trees not in `digests`, and unfinished ones of an earlier life."""
        kept = frozenset(digests)
        for digest in self._digests():
            if digest not in kept:
                self._remove(digest, None)
        for name in self._names():
            if name.startswith(_UNFINISHED) and name not in self._under_way:
                disk.remove(f"{self._root}/{name}")

    @contextmanager
    def _workplace(self) -> Iterator[str]:
        with self._lock:
            # The folder itself may have been deleted since.
            os.makedirs(self._root, exist_ok=True)
            place = tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._root)
            self._under_way.add(os.path.basename(place))
        try:
            yield place
        finally:
            disk.remove(place)
            with self._lock:
                self._under_way.discard(os.path.basename(place))

    def _names(self) -> list[str]:
        with suppress(FileNotFoundError):
            return os.listdir(self._root)
        return []

    def _digests(self) -> list[str]:
        return [name for name in self._names() if _DIGEST.fullmatch(name)]

    def _size(self, digest: str) -> int:
        if digest not in self._sizes:
            self._sizes[digest] = disk.tree_bytes(self.path(digest))
        return self._sizes[digest]

    def _remove(self, digest: str, use: int | None) -> bool:
        """Was it removed? Not if it has been used again since `use`. None does not ask."""
        with self._workplace() as place, self._lock:
            if use is not None and self._uses.get(digest, 0) != use:
                return False
            # Renamed first: a tree half removed must never be taken for a whole one.
            with suppress(FileNotFoundError):
                os.rename(self.path(digest), f"{place}/tree")
            self._sizes.pop(digest, None)
            self._uses.pop(digest, None)
        return True
