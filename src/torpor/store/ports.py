"""The ports of the store. Adapters translate every foreign error to `StoreUnavailable` (cause kept)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torpor.model.function import CodeRef, FunctionRecord
from torpor.model.layer import LayerVersion


class MetadataStore(Protocol):
    """Functions, layers and other resources, durable once a call has returned. Calls are short and synchronous."""

    def functions(self) -> Iterable[FunctionRecord]:
        """Every function with its versions and aliases, ordered by name."""
        ...

    def save(self, record: FunctionRecord) -> None:
        """Insert or replace with all versions and aliases, atomically and durably; what has not changed is not
        written again, versions that the record does not name go."""
        ...

    def remove(self, name: str) -> None:
        """Forget a function with all its versions and aliases. Unknown names are no error."""
        ...

    def layers(self) -> Iterable[LayerVersion]:
        """Every version of every layer, deleted ones too, ordered by name and number."""
        ...

    def save_layer(self, layer: LayerVersion) -> None:
        """Insert or replace a version, atomically and durably."""
        ...

    def resources(self, kind: str) -> Iterable[tuple[str, dict[str, Any]]]:
        """Name and document of every resource of a kind, ordered by name."""
        ...

    def save_resource(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """Insert or replace, atomically and durably."""
        ...

    def remove_resource(self, kind: str, name: str) -> None:
        """Unknown names are no error."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A folder that becomes a package as it is: owners, modes and times of its files stay."""

    folder: str


class ArchiveHome(Protocol):
    """Where archives are kept, by the hex SHA-256 of their content. Blocking (call it from worker threads)."""

    def put(self, digest: str, archive: bytes) -> None:
        """Keep an archive, durable once this returns; one that is there is written again."""
        ...

    def get(self, digest: str) -> bytes:
        """The content as it is now. Raises NotFound."""
        ...

    def keep_only(self, digests: Iterable[str]) -> None:
        """Remove every other archive, and what unfinished writes have left."""
        ...


class CodeStore(Protocol):
    """Packages, named by the digest of the archive or tree they came from: archives to keep, and unpacked trees."""

    def add(self, archive: bytes, *, unpacked_limit: int) -> CodeRef:
        """Check, unpack and keep a zip archive; a package already present is not unpacked again.

        Blocking (call it from a worker thread). Raises InvalidPackage for a broken or unsafe archive and TooLarge when
        it unpacks to more than `unpacked_limit` bytes; in both cases nothing is left behind.
        """
        ...

    def adopt(self, tree: Tree, *, unpacked_limit: int) -> CodeRef:
        """Keep a tree, which is moved away from where it was, its owners, modes and times unchanged.

        Blocking. Raises TooLarge when it has more than `unpacked_limit` bytes; then the tree stays where it is.
        """
        ...

    def folder(self, code: CodeRef) -> str:
        """Path of the unpacked tree, if it is present; of an archive: directories 0755, files 0644 or 0755."""
        ...

    def present(self, code: CodeRef) -> bool:
        """Is the unpacked tree there? It counts as used now. Quick enough for the event loop."""
        ...

    def fetch(self, code: CodeRef, in_use: Iterable[CodeRef]) -> str:
        """Path of the unpacked tree, which is made again out of its archive if it is not there.

        Blocking. To keep the bound, trees that are not `in_use` are removed, least recently used first. Raises
        StoreUnavailable if the archive is missing, damaged or out of reach, or the disk full.
        """
        ...

    def trim(self, in_use: Iterable[CodeRef]) -> None:
        """Remove trees that are not `in_use`, least recently used first, until the bound is kept. Blocking."""
        ...

    def archive(self, code: CodeRef) -> bytes:
        """The archive as it was given. Raises NotFound, for adopted trees too; StoreUnavailable for a damaged one."""
        ...

    def keep_only(self, used: Iterable[CodeRef]) -> None:
        """Remove every package not in `used`, and unfinished ones of an earlier life."""
        ...
