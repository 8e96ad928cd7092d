"""The child's part in its restoration: it gets ready to be replaced by a saved process, and waits for that."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from typing import Any

from . import descriptors, places, resuming, wire


def lend(channel: socket.socket, framed: int, layout: int, memory: int, files: int) -> None:
    """Open what the saved process had open and tell the keeper. Returns only if something goes wrong.

    The framed log, if there is one, is `framed` in the saved process as it is here."""
    description = read_description(layout)
    numbers = [known["number"] for known in description["files"]]
    spared = max([*numbers, framed, memory, layout, files, channel.fileno()]) + 1
    content, image = descriptors.moved(files, spared), descriptors.moved(memory, spared)
    ours = socket.socket(fileno=descriptors.moved(channel.detach(), spared))
    os.close(layout)
    _unpack(content)
    descriptors.open_again(description["files"], spared)
    shown = {path: _open(path, spared) for path in resuming.files_of(description)}
    wire.send(ours, {"files": shown, "memory": image, "others": [ours.fileno(), content]})
    wire.receive(ours)


def read_description(descriptor: int) -> dict[str, Any]:
    """What a snapshot's file says of its process."""
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    description: dict[str, Any] = json.loads(data)
    return description


def _open(path: str, spared: int) -> int:
    return descriptors.moved(os.open(path, os.O_RDONLY | os.O_CLOEXEC), spared)


def pack() -> int:
    """A file in memory with the content of `/tmp`, connections left out. Raises OSError."""
    archive = os.memfd_create("files", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if os.listdir(places.TMP):
        with open(archive, "wb", closefd=False) as file, tarfile.open(fileobj=file, mode="w") as packed:
            packed.add(places.TMP, arcname=".")
    return archive


def _unpack(archive: int) -> None:
    """As the user of this sandbox, who may do no more than the function itself."""
    if not os.fstat(archive).st_size:
        return
    os.lseek(archive, 0, os.SEEK_SET)
    with open(archive, "rb", closefd=False) as file, tarfile.open(fileobj=io.BufferedReader(file.raw)) as packed:
        for member in packed:
            if member.name != ".":
                packed.extract(member, places.TMP, set_attrs=True, filter="tar")
