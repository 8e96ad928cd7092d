"""What an archive would put on the disk, decided before a byte is written.

Nothing an archive says about itself is believed: names, kinds of entries and their places in the archive are checked
here, sizes are counted while unpacking. What passes describes a plain tree: directories, regular files, and symbolic
links that stay inside it.
"""

import re
import stat
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field

from torpor.model.errors import InvalidPackage

ENTRIES_MAX = 100_000
"""Files, links and directories together; directories that only occur in longer names count as well."""
PART_BYTES_MAX = 255
PATH_BYTES_MAX = 2_048
DEPTH_MAX = 128

_CENTRAL_ENTRY = b"PK\x01\x02"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1 | 0x40
_UTF8 = 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Only these systems' archives carry Unix modes: 3 is Unix, 19 is macOS.
_UNIX = (3, 19)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file or a symbolic link: where it goes, and where its content is."""

    path: str
    info: zipfile.ZipInfo
    mode: int = 0o644


@dataclass(slots=True, kw_only=True)
class Tree:
    """All that an archive unpacks to."""

    directories: dict[str, None] = field(default_factory=dict)
    """A set that keeps its order: parents come before what is in them."""
    files: dict[str, Item] = field(default_factory=dict)
    links: dict[str, Item] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.directories) + len(self.files) + len(self.links)


def refuse_crowded(archive: bytes) -> None:
    """Refuse an index of too many entries before memory is spent on reading it. Raises InvalidPackage."""
    if archive.count(_CENTRAL_ENTRY) > ENTRIES_MAX:
        raise InvalidPackage(f"The package holds more than {ENTRIES_MAX} entries.")


def plan(archive: bytes, infos: Iterable[zipfile.ZipInfo]) -> Tree:
    """The tree the entries describe. Raises InvalidPackage with the first reason not to unpack it."""
    entries = list(infos)
    for info in entries:
        _check_readable(info)
    _check_overlaps(archive, entries)
    tree = Tree()
    for info in entries:
        _place(tree, info)
        if len(tree) > ENTRIES_MAX:
            raise InvalidPackage(f"The package holds more than {ENTRIES_MAX} files and directories.")
    if not tree.files:
        raise InvalidPackage("The package holds no files.")
    return tree


def _check_readable(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise InvalidPackage(f"The entry {_shown(info.filename)} is encrypted; make the package without a password.")
    if info.compress_type not in _METHODS:
        reason = "is compressed in a way other than deflate"
        raise InvalidPackage(f"The entry {_shown(info.filename)} {reason}; make the package again.")


def _check_overlaps(archive: bytes, entries: list[zipfile.ZipInfo]) -> None:
    """Two entries may not share bytes, or a small archive could unpack to any size."""
    end = 0
    for info in sorted(entries, key=lambda entry: entry.header_offset):
        if info.header_offset < end:
            raise InvalidPackage(f"The entry {_shown(info.filename)} overlaps another entry.")
        end = _end_of(archive, info)


def _end_of(archive: bytes, info: zipfile.ZipInfo) -> int:
    start = info.header_offset
    if start < 0 or start + 30 > len(archive):
        raise InvalidPackage(f"The entry {_shown(info.filename)} lies outside the archive.")
    signature, name, extra = _LOCAL_HEADER.unpack_from(archive, start)
    end: int = start + 30 + name + extra + info.compress_size
    if signature != b"PK\x03\x04" or end > len(archive):
        raise InvalidPackage(f"The entry {_shown(info.filename)} is cut off or has no header.")
    return end


def _place(tree: Tree, info: zipfile.ZipInfo) -> None:
    name = _name(info)
    parts = _parts(name)
    mode = info.external_attr >> 16 if info.create_system in _UNIX else 0
    kind = stat.S_IFMT(mode) or (stat.S_IFDIR if name.endswith("/") else stat.S_IFREG)
    if kind == stat.S_IFDIR:
        _place_directory(tree, info, parts)
        return
    if kind not in (stat.S_IFREG, stat.S_IFLNK):
        raise InvalidPackage(f"The entry {_shown(name)} is a device, pipe or socket; only files may be in a package.")
    if not parts or name.endswith("/"):
        raise InvalidPackage(f"The entry {_shown(name)} is a file with the name of a directory.")
    _make_directories(tree, parts[:-1])
    path = "/".join(parts)
    if path in tree.files or path in tree.links or path in tree.directories:
        raise InvalidPackage(f"The package holds {_shown(path)} twice.")
    if kind == stat.S_IFLNK:
        tree.links[path] = Item(path=path, info=info)
    else:
        tree.files[path] = Item(path=path, info=info, mode=0o755 if mode & 0o111 else 0o644)


def _place_directory(tree: Tree, info: zipfile.ZipInfo, parts: list[str]) -> None:
    if info.file_size or info.compress_size > 2:
        # An empty stream may have been deflated to two bytes.
        raise InvalidPackage(f"The entry {_shown(info.filename)} is a directory with content.")
    _make_directories(tree, parts)


def _make_directories(tree: Tree, parts: list[str]) -> None:
    if "/".join(parts) in tree.directories:
        return
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        if path in tree.files or path in tree.links:
            raise InvalidPackage(f"The package holds {_shown(path)} both as a directory and as a file.")
        tree.directories[path] = None


def _name(info: zipfile.ZipInfo) -> str:
    """The entry's name; archives made on Unix mostly hold UTF-8 without saying so."""
    raw = info.orig_filename
    if "\0" in raw or "\0" in info.filename:
        raise InvalidPackage(f"The name {_shown(raw)} holds a NUL character.")
    if info.flag_bits & _UTF8 or info.filename != raw:
        return info.filename
    try:
        return raw.encode("cp437").decode("utf-8")
    except UnicodeError:
        return raw


def _parts(name: str) -> list[str]:
    if not name or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise InvalidPackage(f"The name {_shown(name)} is empty or absolute; names must be relative to the package.")
    if "\\" in name:
        raise InvalidPackage(f"The name {_shown(name)} holds a backslash; separate directories by slashes.")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidPackage(f"The name {_shown(name)} leads out of the package.")
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in parts]
    if len(parts) > DEPTH_MAX or max(sizes, default=0) > PART_BYTES_MAX or sum(sizes) + len(sizes) > PATH_BYTES_MAX:
        raise InvalidPackage(f"The name {_shown(name)} is too long or too deep.")
    return parts


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else name[:77] + "...")
