"""The open files of a process: described for its snapshot, opened again for a restored one."""

from __future__ import annotations

import fcntl
import os
import re
import select
import socket
import stat
from collections.abc import Collection
from typing import Any

_PIPE = re.compile(r"pipe:\[(\d+)\]")
_TARGET = re.compile(r"tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)\s+data:\s*([0-9a-f]+)")
_COUNT = re.compile(r"eventfd-count:\s*([0-9a-f]+)")
_SEMAPHORE = re.compile(r"eventfd-semaphore:\s*1")
_OPENED = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_DIRECTORY
_CREATED = 0o100 | 0o1000
_WRITES = os.O_WRONLY | os.O_RDWR

Description = dict[str, Any]


class Unfit(Exception):
    """A descriptor that cannot be taken along; the text says which."""


def describe(folder: str, given: Collection[int]) -> list[Description]:
    """Those of the process with this folder in `/proc`, less those in `given`. Raises Unfit."""
    numbers = sorted(int(name) for name in os.listdir(f"{folder}/fd"))
    return [_described(folder, number) for number in numbers if number not in given]


def _described(folder: str, number: int) -> Description:
    link = os.readlink(f"{folder}/fd/{number}")
    with open(f"{folder}/fdinfo/{number}") as file:
        information = file.read()
    fields = dict(line.split(":", 1) for line in information.splitlines() if ":" in line)
    flags, position = int(fields["flags"], 8), int(fields["pos"])
    known: Description = {"number": number, "flags": flags & ~_CREATED}
    if link.startswith("socket:"):
        return known | {"kind": "socket"}
    if found := _PIPE.fullmatch(link):
        return known | {"kind": "pipe", "pipe": int(found[1])}
    if link == "anon_inode:[eventpoll]":
        return known | {"kind": "epoll", "targets": _TARGET.findall(information)}
    if link == "anon_inode:[eventfd]":
        count = _COUNT.search(information)
        return known | {
            "kind": "event",
            "count": int(count[1], 16) if count else 0,
            "semaphore": bool(_SEMAPHORE.search(information)),
        }
    if link.startswith("/") and not link.endswith(" (deleted)"):
        return known | {"kind": "file", "path": link, "position": position}
    raise Unfit(f"it has a file open that cannot be taken along (descriptor {number}: {link})")


def open_again(described: list[Description], spared: int) -> None:
    """Open them in this process under their numbers, which are all below `spared`. Raises OSError."""
    pipes: dict[int, tuple[int, int]] = {}
    for known in described:
        _place(_opened(known, pipes, spared), known)
    for reader, writer in pipes.values():
        os.close(reader)
        os.close(writer)
    for known in described:
        if known["kind"] == "epoll":
            _watch(known)


def _opened(known: Description, pipes: dict[int, tuple[int, int]], spared: int) -> int:
    """Under a number that nothing else is to have."""
    kind = known["kind"]
    if kind == "pipe":
        if known["pipe"] not in pipes:
            reader, writer = os.pipe()
            pipes[known["pipe"]] = moved(reader, spared), moved(writer, spared)
        return above(pipes[known["pipe"]][bool(known["flags"] & _WRITES)], spared)
    if kind == "file":
        return moved(_file(known), spared)
    if kind == "socket":
        ours, theirs = socket.socketpair()
        theirs.close()
        return moved(ours.detach(), spared)
    if kind == "event":
        return moved(os.eventfd(known["count"], os.EFD_SEMAPHORE if known["semaphore"] else 0), spared)
    with select.epoll() as queue:
        return above(queue.fileno(), spared)


def above(descriptor: int, spared: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, spared)


def moved(descriptor: int, spared: int) -> int:
    """The same under a number from `spared` on, in place of its own."""
    number = above(descriptor, spared)
    os.close(descriptor)
    return number


def _file(known: Description) -> int:
    descriptor = os.open(known["path"], known["flags"] & _OPENED)
    if known["position"] and stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.lseek(descriptor, known["position"], os.SEEK_SET)
    return descriptor


def _place(descriptor: int, known: Description) -> None:
    number, flags = known["number"], known["flags"]
    os.dup2(descriptor, number)
    os.close(descriptor)
    os.set_inheritable(number, not flags & os.O_CLOEXEC)
    os.set_blocking(number, not flags & os.O_NONBLOCK)


def _watch(known: Description) -> None:
    queue = select.epoll.fromfd(known["number"])
    _queues.append(queue)  # closing it would close the descriptor
    for number, events, _ in known["targets"]:
        try:
            queue.register(int(number), int(events, 16))
        except OSError:
            continue  # what it watched cannot be watched any more


_queues: list[select.epoll] = []
