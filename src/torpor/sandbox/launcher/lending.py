"""The child's part in its restoration: it gets ready to be replaced by a saved process, and waits for that.

Also how a snapshot's description and files lie in files in memory.
"""

from __future__ import annotations

import json
import os
import socket
import tarfile
from typing import Any

from . import checkpoint, descriptors, places, syscalls, wire
from .descriptors import Unfit
from .remaking import CALLS_SIZE
from .tracing import page_call

_SIZE = 4
_CONNECTS_WITHIN = 5.0
_TRUSTED: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
"""Python before 3.11.4 trusts without being told, and cannot be."""


def lend(channel: socket.socket, saved: dict[str, Any], memory: int, files: int) -> None:
    """Open what the saved process had open, make a page of calls, and tell the keeper, or why not. Returns only if
    something goes wrong.

    `saved` has what is needed of its description, and the request to send again where it was `asking`, with the address
    for that. Its memory is to have the number that says so, above all of that."""
    known, number = saved["files"], saved["memory"]
    content, image = descriptors.moved(files, number), descriptors.moved(memory, number)
    ours = socket.socket(fileno=descriptors.moved(channel.detach(), number))
    if image != number:
        if ours.fileno() == number:
            ours = socket.socket(fileno=descriptors.moved(ours.detach(), number + 1))
        elif content == number:
            content = descriptors.moved(content, number + 1)
        os.dup2(image, number)
    try:
        _unpack(content)
        descriptors.open_again(known, number + 1)
        syscalls.make(page_call(saved["scratch"], CALLS_SIZE))
        if saved["request"] and any(each["number"] == saved["asking"] for each in known):
            _ask_again(saved["asking"], saved["address"], saved["request"].encode())
    except Exception as error:  # whatever it is, the caller is to be told
        wire.send(ours, {"error": f"{error}"})
        return
    wire.send(ours, {"lent": True})
    wire.receive(ours)


def _ask_again(descriptor: int, address: str, request: bytes) -> None:
    """Let a fresh connection stand where the saved process had one, with its request on the way."""
    host, _, port = address.rpartition(":")
    # Looking a name up, even a number, takes modules that cannot be imported any more.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECTS_WITHIN)
        connection.connect((host, int(port)))
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
    checkpoint.seal(layout)
    return layout


def read(layout: int, memory: int) -> checkpoint.Snapshot:
    """The snapshot whose file from `write` this is."""
    data = os.pread(layout, os.fstat(layout).st_size, 0)
    end = _SIZE + int.from_bytes(data[:_SIZE], "big")
    return checkpoint.Snapshot(json.loads(data[_SIZE:end]), data[end:], memory)


def pack(most: int) -> int:
    """A file in memory with the content of `/tmp`, connections left out. Raises Unfit if its files have more than
    `most` bytes, holes included, and OSError."""
    size = 0
    for folder, _, names in os.walk(places.TMP):
        size += sum(os.lstat(f"{folder}/{name}").st_size for name in names)
    if size > most:
        raise Unfit(f"the files in {places.TMP} have {size} bytes")
    archive = os.memfd_create("files", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if os.listdir(places.TMP):
        with open(archive, "wb", closefd=False) as file, tarfile.open(fileobj=file, mode="w") as packed:
            packed.add(places.TMP, arcname=".")
    checkpoint.seal(archive)
    return archive


def _unpack(archive: int) -> None:
    """As the user of this sandbox, who may do no more than the function itself. What an extension has made here already
    stays."""
    if not os.fstat(archive).st_size:
        return
    folders = []
    # Others read the same file at the same time: each needs a position of its own.
    own = os.open(f"/proc/self/fd/{archive}", os.O_RDONLY | os.O_CLOEXEC)
    with open(own, "rb") as file, tarfile.open(fileobj=file) as packed:
        for member in packed:
            place = os.path.join(places.TMP, member.name)
            if member.name == "." or (os.path.lexists(place) and not member.isdir()):
                continue
            if member.isdir():
                folders.append((place, member.mode))
                member.mode |= 0o700
            packed.extract(member, places.TMP, **_TRUSTED)
    for place, mode in reversed(folders):
        os.chmod(place, mode)
