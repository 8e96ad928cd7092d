"""The private root every sandbox of one launcher starts from: a tmpfs with read-only binds and its own `/etc`.

Sources are opened before anything is mounted, so that no mount made here can stand in front of one.
"""

from __future__ import annotations

import os
from typing import Any

from . import configuration, places, syscalls

_TREES = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_TREES_BY_PATH = tuple(f"/{name}" for name in _TREES)
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_ETC_FILES = ("ld.so.cache", "ld.so.conf", "localtime", "protocols", "services", "mime.types")
_EMPTY = (
    *("var/lang", "var/runtime", "var/tmp", "opt", "tmp", "proc", "dev/shm", "run/workers"),
    *("home", "root", "srv", "mnt", *(place.lstrip("/") for place in places.CODE_PLACES)),
)

_PASSWD = f"""root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/sbin/nologin
{places.USER_NAME}:x:{places.USER_ID}:{places.GROUP_ID}::/home/{places.USER_NAME}:/sbin/nologin
"""
_GROUP = f"""root:x:0:
nobody:x:65534:
{places.USER_NAME}:x:{places.GROUP_ID}:
"""
_HOSTS = f"""127.0.0.1 localhost sandbox.localdomain sandbox {places.HOST_NAME}
{places.GATEWAY} host.torpor.internal
"""
_RESOLV = f"nameserver {places.GATEWAY}\noptions timeout:2 attempts:2\n"
_NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"

_PIP = "[global]\nbreak-system-packages = true\nroot-user-action = ignore\ndisable-pip-version-check = true\n"
"""What is installed inside touches no host, whoever manages the host's own packages."""

Settings = dict[str, Any]


class _Builder:
    """Fills a new root below `top`."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._sources: dict[str, int] = {}

    def open(self, source: str) -> None:
        self._sources[source] = os.open(source, os.O_PATH | os.O_CLOEXEC)

    def bind(self, source: str, inside: str, *, writable: bool = False, devices: bool = False) -> None:
        target = self._top + inside
        descriptor = self._sources[source]
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.makedirs(target, exist_ok=True)
        else:
            self.write(inside, "")
        syscalls.mount(f"/proc/self/fd/{descriptor}", target, flags=syscalls.MS_BIND | syscalls.MS_REC)
        syscalls.protect(target, read_only=not writable, devices=devices)

    def write(self, inside: str, content: str) -> None:
        os.makedirs(os.path.dirname(self._top + inside), exist_ok=True)
        with open(self._top + inside, "w") as file:
            file.write(content)

    def close(self) -> None:
        for descriptor in self._sources.values():
            os.close(descriptor)


def enter(settings: Settings) -> None:
    """Build the root and make it this process's own; the host's is gone afterwards. Must run single-threaded."""
    _own_namespaces(rootless=settings["rootless"])
    top = settings["root"]
    builder = _Builder(top)
    sources = _hidden_sources(settings)
    for source in [*_tree_sources(), *sources.values()]:
        builder.open(source)
    etc = _etc_files()
    syscalls.mount("root", top, "tmpfs", syscalls.MS_NOSUID, "mode=0755,size=16m")
    _place_system(builder, top, etc)
    _place_hidden(builder, top, sources)
    for name, image in settings["images"].items():
        if image["languages"]:
            _place_languages(top + places.image_languages(name), top, image)
    builder.close()
    _switch(top)


def _own_namespaces(*, rootless: bool) -> None:
    user, group = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWNS | (syscalls.CLONE_NEWUSER if rootless else 0))
    if rootless:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {user} 1")
        _write("/proc/self/gid_map", f"0 {group} 1")
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)


def _hidden_sources(settings: Settings) -> dict[str, str]:
    """Inside path -> host path of everything launcher and keepers need besides the system itself."""
    found = {
        places.CODE: settings["code"],
        places.PROGRAM: settings["program"],
        places.CGROUP: places.CGROUP,
    }
    if settings["disk"]:
        found[places.STATE] = settings["state"]
        found[places.DEVICES] = "/dev"
    if settings["own_lang"]:
        found[places.OWN_LANG] = settings["own_lang"]
    if settings["lang"]:
        found[places.LANG] = settings["lang"]
    if settings["runtime_dir"]:
        found[places.RUNTIME] = settings["runtime_dir"]
    found.update(settings["folders"])
    return {inside: source for inside, source in found.items() if os.path.exists(source)}


def _tree_sources() -> list[str]:
    trees = [f"/{name}" for name in _TREES if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")]
    devices = [f"/dev/{name}" for name in _DEVICES if os.path.exists(f"/dev/{name}")]
    return [*trees, *devices, "/proc"]


def _etc_files() -> dict[str, bytes]:
    found = {}
    for name in _ETC_FILES:
        try:
            with open(f"/etc/{name}", "rb") as file:
                found[name] = file.read()
        except OSError:
            continue
    return found


def _place_system(builder: _Builder, top: str, etc: dict[str, bytes]) -> None:
    for name in _EMPTY:
        os.makedirs(f"{top}/{name}", exist_ok=True)
    os.chmod(f"{top}/var/tmp", 0o1777)
    for source in _tree_sources():
        builder.bind(source, source, writable=source == "/proc", devices=source.startswith("/dev/"))
    for name in _TREES:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{top}/{name}")
    _write_etc(builder, top, etc)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{top}/dev/{name}")
    # Not flagged read-only: writing has to fail as `Permission denied`, not as `Read-only file system`.
    syscalls.mount("shm", f"{top}/dev/shm", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0555,size=4k")


def _write_etc(builder: _Builder, top: str, etc: dict[str, bytes]) -> None:
    for name, content in {
        "passwd": _PASSWD,
        "group": _GROUP,
        "hosts": _HOSTS,
        "resolv.conf": _RESOLV,
        "nsswitch.conf": _NSSWITCH,
        "hostname": places.HOST_NAME + "\n",
        "pip.conf": _PIP,
    }.items():
        builder.write(f"/etc/{name}", content)
    for name, data in etc.items():
        with open(f"{top}/etc/{name}", "wb") as file:
            file.write(data)
    configuration.copy_trees("/etc", f"{top}/etc")
    if os.path.exists("/usr/lib/os-release"):
        os.symlink("../usr/lib/os-release", f"{top}/etc/os-release")
    os.symlink("/proc/self/mounts", f"{top}/etc/mtab")


def _place_hidden(builder: _Builder, top: str, sources: dict[str, str]) -> None:
    os.makedirs(top + places.HIDDEN)
    syscalls.mount("hidden", top + places.HIDDEN, "tmpfs", syscalls.MS_NOSUID, "mode=0700,size=1m")
    for number in range(places.LOWERS_COUNT):
        os.makedirs(f"{top}{places.LOWERS}/{number}")
    for place in (places.PROC, places.SCRATCH):
        os.makedirs(top + place)
    for inside, source in sources.items():
        writable = inside in (places.STATE, places.DEVICES, places.CGROUP)
        builder.bind(source, inside, writable=writable, devices=inside == places.DEVICES)


def _place_languages(folder: str, top: str, image: dict[str, Any]) -> None:
    """Put several interpreters and the commands that start them into one folder."""
    os.makedirs(f"{folder}/bin")
    for name, source in image["languages"].items():
        if source in _TREES_BY_PATH:
            os.symlink(source, f"{folder}/{name}")
        elif os.path.isdir(top + source):
            os.mkdir(f"{folder}/{name}")
            syscalls.mount(top + source, f"{folder}/{name}", flags=syscalls.MS_BIND | syscalls.MS_REC)
            syscalls.protect(f"{folder}/{name}")
    for name, content in image["commands"].items():
        _place_command(f"{folder}/bin/{name}", content)


def _place_command(path: str, content: str) -> None:
    if content.startswith("#!"):
        _write(path, content)
        os.chmod(path, 0o755)
    else:
        os.symlink(content, path)


def _switch(top: str) -> None:
    os.chdir(top)
    syscalls.pivot_root(".", ".")
    syscalls.unmount(".")
    os.chdir("/")
    syscalls.protect("/", devices=True, recursive=False)


def _write(path: str, content: str) -> None:
    with open(path, "w") as file:
        file.write(content)
