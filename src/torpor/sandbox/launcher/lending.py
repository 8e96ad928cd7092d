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
_CONNECTS_WITHIN = 5.0


def lend(channel: socket.socket, saved: dict[str, Any], memory: int, files: int) -> None:
    """Open what the saved process had open and tell the keeper. `saved` has what is needed of its description, and the
    request to send again where it was `asking`, with the address for that. Its memory is to have the number that says
    so, above all of that. Returns only if something goes wrong."""
    known, number = saved["files"], saved["memory"]
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
    if saved["request"] and any(each["number"] == saved["asking"] for each in known):
        _ask_again(saved["asking"], saved["address"], saved["request"].encode())
    wire.send(ours, {"lent": True})
    wire.receive(ours)


def _ask_again(descriptor: int, address: str, request: bytes) -> None:
    """Let a fresh connection stand where the saved process had one, with its request on the way."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), _CONNECTS_WITHIN) as connection:
        connection.settimeout(None)
        connection.sendall(request)
        flags = os.get_inheritable(descriptor), os.get_blocking(descriptor)
        os.dup2(connection.fileno(), descriptor, inheritable=flags[0])
        os.set_blocking(descriptor, flags[1])


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
