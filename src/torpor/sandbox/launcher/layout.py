"""The directories of a sandbox that may change, or that an earlier sandbox changed.

Each is an overlay. Its lower layers are the directory as it is, and what was saved of an earlier sandbox above it; its
upper layer, if it may change, lies beside `/tmp` on the sandbox's own disk and is limited with it. What lies below
belongs to root or to the server's account; to the sandbox's first user it is shown as their own by mapping ids, so that
nothing has to be copied. Where the kernel cannot map, small directories are copied and given to that user, and of
large ones the most usual folders are made again above, so that at least new files can be added.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Any

from . import places, syscalls, wire

SYSTEM = (
    *("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"),
    *("etc", "var", "opt", "home", "root", "srv", "mnt"),
)
_COPIED = ("code", "etc", "var", "home", "root", "srv", "mnt")
_USUAL = (
    *("", "bin", "sbin", "lib", "lib64", "libexec", "include", "share", "share/*", "etc", "lib/*", "lib/*/*-packages"),
    *("local", "local/*", "local/lib/*", "local/lib/*/*-packages", "local/share/*"),
)
_SHARED_MEMORY = "mode=1777,size=64m"
_OPTIONS = "index=off,metacopy=off,redirect_dir=nofollow"
_COPY_AT_ONCE = 1 << 20


class Layout:
    """Mounts the directories of one sandbox. For one use."""

    def __init__(self, message: wire.Message, settings: dict[str, Any], owner: int, mapping: int | None) -> None:
        """`owner` is the sandbox's first user as this process sees it; `mapping` a user namespace in which root stands
        for that user, None if ids cannot be mapped here."""
        self._message = message
        self._writable: bool = message["writable"]
        self._system = code_folder(message["system"]) if message["system"] else ""
        self._private_attributes: bool = settings["rootless"]
        self._owner = owner
        self._mapping = mapping
        self._used = 0
        self.uppers: dict[str, int] = {}
        """Descriptors of the folders that collect changes, by the directory's name; the caller's to close."""

    def build(self) -> None:
        """Mount everything but `/run`, which still holds what this needs. Raises OSError."""
        if self._writable:
            _move_tmp()
            syscalls.mount("shm", "/dev/shm", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, _SHARED_MEMORY)
        kept = [(path, syscalls.clone_tree(path)) for path in (places.LANG, places.RUNTIME) if os.path.ismount(path)]
        for name in SYSTEM:
            if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}"):
                self._show(name, f"/{name}", self._bases(name))
        for path, tree in kept:
            syscalls.attach(tree, path)
        for key, path in _languages():
            self._show(key, path, [path])
        self._show_code()

    def take_run(self) -> int | None:
        """A writable `/run`, to be attached when the hidden folders are gone; None where it stays as it is."""
        if not self._writable:
            return None
        folder = self._folder("run", 0o755)
        os.mkdir(f"{folder}/workers", 0o755)
        with contextlib.suppress(OSError):
            os.mkdir(f"{folder}/lock", 0o1777)
        return syscalls.clone_tree(folder)

    def _bases(self, name: str) -> list[str]:
        layers = [code_folder(layer) for layer in reversed(self._message["layers"])]
        return layers if self._writable and name == "opt" and layers else [f"/{name}"]

    def _show_code(self) -> None:
        source = code_folder(self._message["code"])
        if self._writable:
            self._show("code", self._message["code_at"], [source])
        else:
            show(source, self._message["code_at"], self._mapping)

    def _show(self, key: str, target: str, bases: list[str]) -> None:
        saved = f"{self._system}/{key}"
        sources = [saved, *bases] if self._system and key != "code" and os.path.isdir(saved) else bases
        if self._writable:
            self._mount_writable(key, target, sources)
        elif len(sources) > 1:
            self._merge(":".join(self._lower(source)[0] for source in sources), target)

    def _mount_writable(self, key: str, target: str, sources: list[str]) -> None:
        lowers = [self._lower(source) for source in sources]
        upper = self._folder(f"upper-{key}", stat.S_IMODE(os.stat(sources[-1]).st_mode))
        work = self._folder(f"work-{key}", 0o700)
        lower = ":".join(place for place, _ in lowers)
        if any(not mapped and os.stat(place).st_uid != self._owner for place, mapped in lowers):
            self._give(key, self._merged(lower) if len(lowers) > 1 else lower, upper)
        options = f"lowerdir={lower},upperdir={upper},workdir={work},{_OPTIONS},volatile{self._attributes()}"
        syscalls.mount("own", target, "overlay", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
        self.uppers[key] = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _merge(self, lower: str, target: str) -> None:
        flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount("layers", target, "overlay", flags, f"lowerdir={lower}{self._attributes()}")

    def _merged(self, lower: str) -> str:
        """A place where several layers are one."""
        place = self._place()
        self._merge(lower, place)
        return place

    def _attributes(self) -> str:
        return ",userxattr" if self._private_attributes else ""

    def _lower(self, source: str) -> tuple[str, bool]:
        """A place where the source alone is mounted, and whether its files belong to the sandbox's user there."""
        place = self._place()
        return place, show(source, place, self._mapping)

    def _place(self) -> str:
        self._used += 1
        return f"{places.LOWERS}/{self._used - 1}"

    def _folder(self, name: str, mode: int) -> str:
        path = f"{places.SCRATCH}/{name}"
        os.mkdir(path)
        os.chown(path, self._owner, self._owner)
        os.chmod(path, mode)
        return path

    def _give(self, key: str, source: str, upper: str) -> None:
        """Make what lies at the source the user's own, as far as it is small or usual."""
        if key in _COPIED:
            self._copy(source, upper)
            return
        for pattern in _USUAL:
            for folder in glob.glob(f"{source}/{pattern}".rstrip("/")):
                if os.path.isdir(folder) and not os.path.islink(folder):
                    self._make_again(folder, upper + folder[len(source) :])

    def _make_again(self, source: str, target: str) -> None:
        os.makedirs(target, exist_ok=True)
        os.chown(target, self._owner, self._owner)
        os.chmod(target, stat.S_IMODE(os.stat(source).st_mode) | stat.S_IWUSR)

    def _copy(self, source: str, target: str) -> None:
        self._make_again(source, target)
        with os.scandir(source) as entries:
            for entry in entries:
                place = f"{target}/{entry.name}"
                if entry.is_symlink():
                    os.symlink(os.readlink(entry.path), place)
                    os.chown(place, self._owner, self._owner, follow_symlinks=False)
                elif entry.is_dir():
                    self._copy(entry.path, place)
                elif entry.is_file():
                    self._copy_file(entry, place)

    def _copy_file(self, entry: os.DirEntry[str], place: str) -> None:
        with open(entry.path, "rb") as source, open(place, "wb") as target:
            while data := source.read(_COPY_AT_ONCE):
                target.write(data)
            os.fchown(target.fileno(), self._owner, self._owner)
            os.fchmod(target.fileno(), stat.S_IMODE(entry.stat().st_mode) & 0o777)


def code_folder(relative: str) -> str:
    """Where a folder below the code root stands now. Raises OSError if it is not below."""
    if relative.startswith("/") or ".." in relative.split("/"):
        raise OSError(f"{relative} is not below the code store")
    return f"{places.CODE}/{relative}"


def show(source: str, target: str, mapping: int | None) -> bool:
    """Mount a folder elsewhere, its files as the mapping's user's own if that can be; whether it could."""
    tree = syscalls.clone_tree(source, recursive=False)
    mapped = False
    if mapping is not None:
        with contextlib.suppress(OSError):
            syscalls.map_ids(tree, mapping)
            mapped = True
    syscalls.attach(tree, target)
    return mapped


def _move_tmp() -> None:
    """Make room beside `/tmp` on the same disk."""
    syscalls.mount(places.TMP, places.SCRATCH, flags=syscalls.MS_BIND)
    syscalls.unmount(places.TMP)
    folder = f"{places.SCRATCH}/tmp"
    os.mkdir(folder)
    os.chmod(folder, 0o1777)
    syscalls.mount(folder, places.TMP, flags=syscalls.MS_BIND)
    os.chmod(places.SCRATCH, 0o755)


def _languages() -> Iterator[tuple[str, str]]:
    """Name and place of each interpreter that is mounted."""
    if not os.path.ismount(places.LANG):
        return
    several: Sequence[str] = [name for name in os.listdir(places.LANG) if os.path.ismount(f"{places.LANG}/{name}")]
    if not several:
        yield "lang", places.LANG
    for name in several:
        yield f"lang-{name}", f"{places.LANG}/{name}"
