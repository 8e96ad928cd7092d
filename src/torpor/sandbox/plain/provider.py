"""Makes plain sandboxes, each in a folder of its own below one locked folder per server."""

import asyncio
import contextlib
import fcntl
import getpass
import logging
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.images import ImageCatalog, RuntimeImage
from torpor.sandbox.plain import guard
from torpor.sandbox.plain.folders import merge_layers, write_script
from torpor.sandbox.plain.sandbox import Place, PlainSandbox
from torpor.sandbox.port import (
    SNAPSHOTS,
    Capability,
    Isolation,
    ProviderStatistics,
    SandboxListener,
    SandboxSpec,
)
from torpor.sandbox.ports import PortBook
from torpor.sandbox.server_image import LANG

PREFIX = "plain-"
LOCK = "plain.lock"
BACKLOG = 128
GUARD_SECONDS = guard.END_WITHIN + 5.0

_log = logging.getLogger(__name__)


class _Home:
    """One server's folder, its lock and its guard, from `open` to `close`."""

    def __init__(self, state_dir: str) -> None:
        """Sweep and claim. Raises OSError."""
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        with _locked(os.path.join(state_dir, LOCK)):
            _sweep(state_dir)
            self.folder = tempfile.mkdtemp(prefix=PREFIX, dir=state_dir)
            self._claim = _lock_folder(self.folder)
        self._guard = self._start_guard()

    def _start_guard(self) -> "subprocess.Popen[bytes]":
        # -I -S: nothing of the user's environment or packages is loaded. The claim is inherited on purpose.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=() if self._claim is None else (self._claim,),
            start_new_session=True,
            cwd="/",
        )

    def note_session(self, sign: str, session: int) -> None:
        """Tell the guard of a session's start (`+`) or end (`-`)."""
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            # A guard that is gone is no reason to fail: the next `open` cleans up in its stead.
            with contextlib.suppress(OSError):
                os.write(self._guard.stdin.fileno(), f"{sign}{session}\n".encode())

    def release(self) -> None:
        """Let the guard clean up, wait for it, give up the lock."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        try:
            self._guard.wait(GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        guard.remove_tree(self.folder)
        if self._claim is not None:
            os.close(self._claim)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock_folder(folder: str) -> int | None:
    """A descriptor holding the folder's lock, or None if a live server (or its guard) holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(state_dir: str) -> None:
    """End and remove what dead servers left; called with the state folder's lock held."""
    for entry in list(os.scandir(state_dir)):
        if not entry.name.startswith(PREFIX) or not entry.is_dir(follow_symlinks=False):
            continue
        claim = _lock_folder(entry.path)
        if claim is None:
            continue
        try:
            guard.end_all(entry.path, ())
            guard.remove_tree(entry.path)
        finally:
            os.close(claim)


class PlainProvider:
    """The `process` rung. See the package's text for what it gives up."""

    def __init__(self, state_dir: str, images: ImageCatalog) -> None:
        self._state_dir = os.path.abspath(state_dir)
        self._images = images
        self._home: _Home | None = None
        self._sandboxes: dict[str, PlainSandbox] = {}
        self._ports = PortBook()

    @property
    def isolation(self) -> Isolation:
        """Always `process`."""
        return Isolation.PROCESS

    async def open(self) -> None:
        """Claim a folder and clean up after crashed servers. Idempotent. Raises SandboxUnavailable."""
        if self._home is not None:
            return
        try:
            self._home = await asyncio.to_thread(_Home, self._state_dir)
        except OSError as error:
            raise SandboxUnavailable(f"The state folder {self._state_dir} cannot be used: {error}.") from error
        _log.warning("functions run WITHOUT isolation, as user %s: use only code you trust", _user())

    async def warm(self, runtime: str, *, restored: bool = False) -> None:
        """Check that the runtime is there; nothing is prepared. Raises RuntimeMissing."""
        self._images.resolve(runtime)

    async def create(self, spec: SandboxSpec, listener: SandboxListener) -> PlainSandbox:
        """Make a sandbox. Raises SandboxUnavailable or RuntimeMissing."""
        if self._home is None:
            raise SandboxUnavailable("The sandbox provider is not open.")
        image = self._images.resolve(spec.runtime)
        try:
            place = await asyncio.to_thread(_prepare, self._home.folder, spec, image)
        except (OSError, shutil.Error) as error:
            raise SandboxUnavailable(f"The sandbox {spec.name} cannot be made: {error}.") from error
        return self._adopt(self._home, spec, place, listener)

    def _adopt(self, home: _Home, spec: SandboxSpec, place: Place, listener: SandboxListener) -> PlainSandbox:
        if self._home is not home:
            place.api.close()
            raise SandboxUnavailable("The sandbox provider was closed meanwhile.")
        sandbox = PlainSandbox(spec, place, listener, home.note_session, self._forget, self._ports)
        self._sandboxes[spec.name] = sandbox
        return sandbox

    def _forget(self, name: str) -> None:
        self._sandboxes.pop(name, None)

    def snapshots(self) -> Capability:
        return Capability(
            name=SNAPSHOTS,
            available=False,
            detail="Only a sandbox keeps what a saved process had apart from others; see the missing rungs.",
        )

    def capabilities(self) -> tuple[Capability, ...]:
        """What this rung has and lacks."""
        children = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
        return (
            Capability(name="isolation", available=False, detail=f"functions run as user {_user()} on the host itself"),
            Capability(name="changeable directories", available=False, detail="a copy of the code only"),
            Capability(name="root inside", available=False, detail=f"processes stay user {_user()}"),
            Capability(name="limits", available=False, detail="only the number of open files is limited"),
            Capability(name="freeze", available=True, detail="SIGSTOP to process groups and their descendants"),
            Capability(
                name="descendants",
                available=children,
                detail="found through /proc" if children else "this kernel does not list a process's children",
            ),
        )

    def statistics(self) -> ProviderStatistics:
        """Live sandboxes; nothing is ever prepared."""
        return ProviderStatistics(isolation=self.isolation, live=len(self._sandboxes))

    async def close(self) -> None:
        """Destroy every sandbox, end the guard, give the folder back. Idempotent."""
        home, self._home = self._home, None
        await asyncio.gather(*(sandbox.destroy() for sandbox in list(self._sandboxes.values())))
        if home is not None:
            await asyncio.to_thread(home.release)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _prepare(home: str, spec: SandboxSpec, image: RuntimeImage) -> Place:
    """Make a sandbox's folder and socket. Raises OSError, leaving nothing."""
    folder = os.path.join(home, spec.name)
    os.mkdir(folder, 0o700)
    try:
        paths = _folders(folder, spec, image)
        api = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    except (OSError, shutil.Error):
        guard.remove_tree(folder)
        raise
    api.setblocking(False)
    return Place(folder=folder, paths=paths, api=api)


def _folders(folder: str, spec: SandboxSpec, image: RuntimeImage) -> dict[str, str]:
    tmp, absent = os.path.join(folder, "tmp"), os.path.join(folder, "absent")
    os.mkdir(tmp, 0o700)
    os.mkdir(absent, 0o700)
    return {
        "task": _code(folder, spec),
        "opt": _opt(folder, spec.layers),
        "runtime": image.runtime_dir or absent,
        "lang": _lang(folder, image) or absent,
        "tmp": tmp,
    }


def _code(folder: str, spec: SandboxSpec) -> str:
    """The code where it lies, or a copy of it that may change."""
    if not spec.writable:
        return spec.code
    copy = os.path.join(folder, "code")
    shutil.copytree(spec.code, copy, symlinks=True)
    os.chmod(copy, os.stat(copy).st_mode | stat.S_IWUSR)
    return copy


def _lang(folder: str, image: RuntimeImage) -> str | None:
    """Several interpreters get a folder of their own with links to them."""
    if not image.languages:
        return image.lang
    lang = os.path.join(folder, "lang")
    os.makedirs(os.path.join(lang, "bin"))
    for name, prefix in image.languages.items():
        os.symlink(prefix, os.path.join(lang, name))
    for name, content in image.commands.items():
        place, moved = os.path.join(lang, "bin", name), content.replace(LANG, lang)
        if content.startswith("#!"):
            write_script(place, moved)
        else:
            os.symlink(moved, place)
    return lang


def _opt(folder: str, layers: tuple[str, ...]) -> str:
    """A single layer is shown where it lies; only several need a folder of their own."""
    if len(layers) == 1:
        return layers[0]
    merged = os.path.join(folder, "opt")
    merge_layers(layers, merged)
    return merged
