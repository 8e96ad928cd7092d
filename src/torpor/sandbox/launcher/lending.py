"""The child's part in its restoration: it gets ready to be replaced by a saved process, and waits for that.

Also how a snapshot's description and files lie in files in memory.
"""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from typing import Any

from . import checkpoint, descriptors, places, wire

_SIZE = 4


def lend(channel: socket.socket, known: list[dict[str, Any]], number: int, memory: int, files: int) -> None:
    """Open what the saved process had open and tell the keeper; `known` describes it. Its memory is to have this
    `number`, above all of that. Returns only if something goes wrong."""
    content, image = descriptors.moved(files, number), descriptors.moved(memory, number)
    ours = socket.socket(fileno=descriptors.moved(channel.detach(), number))
    if image != number:
        if ours.fileno() == number:
            ours = socket.socket(fileno=descriptors.moved(ours.detach(), number + 1))
        elif content == number:
            content = descriptors.moved(content, number + 1)
        os.dup2(image, number)
    _unpack(content)
    descriptors.open_again(known, number + 1)
    wire.send(ours, {"lent": True})
    wire.receive(ours)


def write(saved: checkpoint.Snapshot) -> int:
    """A file in memory with all but the memory of a snapshot."""
    description = json.dumps(saved.description).encode()
    layout = os.memfd_create("layout", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(layout, len(description).to_bytes(_SIZE, "big") + description + saved.calls)
    return layout


def read(layout: int, memory: int) -> checkpoint.Snapshot:
    """The snapshot whose file from `write` this is."""
    data = os.pread(layout, os.fstat(layout).st_size, 0)
    end = _SIZE + int.from_bytes(data[:_SIZE], "big")
    return checkpoint.Snapshot(json.loads(data[_SIZE:end]), data[end:], memory)


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
