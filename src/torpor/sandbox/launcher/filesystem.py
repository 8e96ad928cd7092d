"""What one sandbox mounts into its own copy of the root."""

from __future__ import annotations

import os
from typing import Any

from . import layout, places, syscalls, tmpdisk, wire

_MASKED = ("cmdline", "config.gz", "kcore", "keys", "latency_stats", "sched_debug", "timer_list")
_PROC_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


def mount_proc() -> int:
    """Show only this pid namespace, and to each user only their own processes, read-only. Returns a writable view."""
    try:
        syscalls.mount("proc", places.PROC, "proc", _PROC_FLAGS, "hidepid=ptraceable")
    except OSError:  # before Linux 5.8
        syscalls.mount("proc", places.PROC, "proc", _PROC_FLAGS, "hidepid=2")
    writable = os.open(places.PROC, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.unmount("/proc")
    syscalls.mount(places.PROC, "/proc", flags=syscalls.MS_BIND)
    return writable


def close_proc() -> None:
    """Make `/proc` read-only, and empty those of its files that tell of the host's inside."""
    syscalls.protect("/proc", recursive=False)
    for name in _MASKED:
        if os.path.exists(f"/proc/{name}"):
            syscalls.mount("/dev/null", f"/proc/{name}", flags=syscalls.MS_BIND)


def mount_own(order: wire.Message, settings: dict[str, Any]) -> tuple[str, str]:
    """Mount what does not depend on the function; tells what `/tmp` is made of, and why not of what was wanted."""
    if os.path.ismount(places.CGROUP):
        syscalls.unmount(places.CGROUP)
    image = settings["images"].get(order["runtime"])
    if image is not None:
        _bind_image(order["runtime"], image)
    return tmpdisk.mount_tmp(order["tmp_mb"], disk=settings["disk"])


def _bind_image(runtime: str, image: dict[str, Any]) -> None:
    if image["languages"]:
        syscalls.mount(places.image_languages(runtime), places.LANG, flags=syscalls.MS_BIND | syscalls.MS_REC)
        syscalls.protect(places.LANG, recursive=False)
    elif image["lang"]:
        _bind(image["lang"], places.LANG)
    if image["runtime_dir"]:
        _bind(image["runtime_dir"], places.RUNTIME)


def assign(
    message: wire.Message, order: wire.Message, settings: dict[str, Any], mapping: int | None
) -> tuple[str, str, dict[str, int]]:
    """Bring in the function's code; afterwards nothing of the host or of other functions can be reached any more.

    `mapping` is a user namespace in which root stands for the sandbox's first user, if one is needed. Tells what `/tmp`
    is made of, why not of what was wanted, and the folders that collect changes."""
    kind, problem = "", ""
    if message["tmp_mb"] != order["tmp_mb"]:
        tmpdisk.unmount_tmp()
        kind, problem = tmpdisk.mount_tmp(message["tmp_mb"], disk=settings["disk"])
    if not message["writable"]:
        _show_layers([layout.code_folder(layer) for layer in message["layers"]])
    uppers: dict[str, int] = {}
    run = None
    if message["writable"] or message["system"]:
        made = layout.Layout(message, settings, 0 if settings["rootless"] else order["user"], mapping)
        made.build()
        uppers, run = made.uppers, made.take_run()
    else:
        layout.show(layout.code_folder(message["code"]), message["code_at"], mapping)
    syscalls.unmount(places.HIDDEN)
    if run is not None:
        syscalls.attach(run, "/run")
    return kind, problem, uppers


def _show_layers(layers: list[str]) -> None:
    if len(layers) == 1:
        _bind(layers[0], places.OPT)
    elif layers:
        flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount("layers", places.OPT, "overlay", flags, "lowerdir=" + ":".join(reversed(layers)))


def _bind(source: str, target: str) -> None:
    # A bind of a protected mount is protected in the same way.
    syscalls.mount(source, target, flags=syscalls.MS_BIND)
