"""The server's side of one launcher process."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.images import RuntimeImage
from torpor.sandbox.launcher import cgroups, entry, places, wire
from torpor.sandbox.linux.channel import Channel, pair
from torpor.sandbox.linux.home import Home
from torpor.sandbox.server_image import LANG

START_SECONDS = 30.0
END_SECONDS = 15.0
SANDBOX_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherPlan:
    """What one launcher serves: one image with its interpreter preloaded (`image`), or several that are booted."""

    code_root: str
    rootless: bool
    disk: bool
    map_ids: bool = False
    """Whether overlays of mounts with other owners can be had."""
    image: RuntimeImage | None = None
    clone: bool = False
    others: Mapping[str, RuntimeImage] = field(default_factory=dict)

    def settings(self, folder: str, parent: str) -> dict[str, Any]:
        """What the launcher is told. Raises SandboxUnavailable."""
        image = self.image
        settings: dict[str, Any] = {
            "state": folder,
            "root": os.path.join(folder, parent),
            "code": os.path.realpath(self.code_root),
            "program": SANDBOX_FOLDER,
            "parent": parent,
            "rootless": self.rootless,
            "disk": self.disk,
            "map_ids": self.map_ids,
            "own_lang": None,
            "lang": image and image.lang,
            "runtime_dir": image and image.runtime_dir,
            "clone_module": (image and self.clone and image.clone_module) or "",
            **_folders(self.others),
        }
        settings.update(self._interpreter())
        return settings

    def _interpreter(self) -> dict[str, Any]:
        if self.image is not None and self.image.executable is not None:
            return {"executable": self.image.executable, "libraries": f"{LANG}/lib"}
        own, prefix = host_interpreter(), os.path.realpath(sys.base_prefix)
        if prefix == "/usr" or not own.startswith(prefix + "/"):
            return {"executable": own, "libraries": "/usr/lib"}
        inside = places.OWN_LANG
        return {"executable": inside + own[len(prefix) :], "libraries": f"{inside}/lib", "own_lang": prefix}


def _folders(images: Mapping[str, RuntimeImage]) -> dict[str, Any]:
    """What the images stand on: every host folder once, with the hidden place it is mounted at."""
    places_of: dict[str, str] = {}

    def hidden(folder: str | None) -> str | None:
        return places_of.setdefault(folder, places.image_folder(len(places_of))) if folder else None

    described = {
        name: {
            "lang": hidden(image.lang),
            "runtime_dir": hidden(image.runtime_dir),
            "languages": {
                # What is part of the system is shown where it is.
                language: folder if folder == "/usr" else hidden(folder)
                for language, folder in image.languages.items()
            },
            "commands": dict(image.commands),
        }
        for name, image in images.items()
    }
    return {"images": described, "folders": {inside: folder for folder, inside in places_of.items()}}


class LauncherProcess:
    """Started by `start`; ends with `close` or by itself, when every keeper it forked ends too."""

    def __init__(self, loop: asyncio.AbstractEventLoop, home: Home, plan: LauncherPlan) -> None:
        self.plan = plan
        self.cgroup_kind = "none"
        self.problems: list[list[str]] = []
        self._loop = loop
        self._home = home
        self._parent = home.group_name()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._ended: dict[str, asyncio.Future[None]] = {}
        self.keepers: dict[str, int] = {}
        """The pid of each living keeper, by its sandbox's name."""
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._closed = False

    @property
    def is_alive(self) -> bool:
        return not self._closed

    async def start(self) -> None:
        """Raises SandboxUnavailable, with the launcher's own words where it has any."""
        ours, theirs = pair()
        settings = self.plan.settings(self._home.folder, self._parent)
        try:
            os.mkdir(settings["root"])
            self._process = _spawn(theirs.fileno())
        except OSError as error:
            ours.close()
            raise SandboxUnavailable(f"The launcher cannot be started: {error}.") from error
        finally:
            theirs.close()
        self._home.note_launcher(self._parent, self._process.pid)
        self._channel = Channel(self._loop, ours, self._on_message, self._on_closed)
        # One copy for each of the launcher's two stages.
        self._channel.send(settings)
        self._channel.send(settings)
        await self._wait_ready()

    async def _wait_ready(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.shield(self._ready)
        except TimeoutError as error:
            await self.close()
            raise SandboxUnavailable("The launcher did not get ready; see the server's error output.") from error
        except BaseException:
            await self.close()
            raise

    def prepare(self, order: dict[str, Any], control: int) -> None:
        """Fork a keeper that serves `control`, which is closed here."""
        self._ended[order["id"]] = self._loop.create_future()
        if self._channel is not None and not self._closed:
            self._channel.send({"do": "prepare", **order}, (control,))
        else:
            os.close(control)
            self._ended[order["id"]].set_result(None)

    async def end(self, name: str) -> None:
        """Kill a keeper and wait until its sandbox is gone with all its control groups. Never raises."""
        ended = self._ended.get(name)
        if ended is None:
            return
        if self._channel is not None:
            self._channel.send({"do": "end", "id": name})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await asyncio.shield(ended)
        self._ended.pop(name, None)

    async def close(self) -> None:
        """End the launcher with all its sandboxes. Idempotent."""
        if self._channel is not None:
            self._channel.close()
        self._on_closed()
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(_wait, process)
            await asyncio.to_thread(cgroups.detect().remove_tree, self._parent)
            self._home.forget_launcher(self._parent)

    def _on_message(self, message: wire.Message, descriptors: list[int]) -> None:
        wire.close_all(descriptors)
        event = message["event"]
        if event == "forked":
            self.keepers[message["id"]] = message["pid"]
        elif event == "ended":
            self.keepers.pop(message["id"], None)
            ended = self._ended.get(message["id"])
            if ended is not None and not ended.done():
                ended.set_result(None)
        elif event == "ready" and not self._ready.done():
            self.cgroup_kind, self.problems = message["cgroups"], message["problems"]
            self._ready.set_result(None)
        elif event == "failed" and not self._ready.done():
            self._ready.set_exception(SandboxUnavailable(f"The launcher failed: {message['reason']}."))

    def _on_closed(self) -> None:
        self._closed = True
        if not self._ready.done():
            self._ready.set_exception(SandboxUnavailable("The launcher ended at its start; see the error output."))
            self._ready.exception()
        for ended in self._ended.values():
            if not ended.done():
                ended.set_result(None)


def _spawn(descriptor: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        entry.command(host_interpreter(), SANDBOX_FOLDER, "enter_root", descriptor),
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env={"LC_CTYPE": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


def _wait(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def host_interpreter() -> str:
    """The real interpreter this server runs on, not a virtual environment's link to it."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))
