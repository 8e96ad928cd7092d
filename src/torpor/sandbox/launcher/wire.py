"""Messages between the server, the launcher and the keepers: one JSON object a packet, descriptors beside it."""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

MAX_BYTES = 196_608
"""Largest packet; below the default buffer of a Unix socket."""
MAX_DESCRIPTORS = 64

Message = dict[str, Any]


class TooLong(ValueError):
    """A message does not fit a packet."""


def encode(message: Message) -> bytes:
    """Raises TooLong if it does not fit a packet."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_BYTES:
        raise TooLong(f"a message of {len(data)} bytes is over the limit of {MAX_BYTES}")
    return data


def send(connection: socket.socket, message: Message, descriptors: tuple[int, ...] = ()) -> None:
    send_packet(connection, encode(message), descriptors)


def send_packet(connection: socket.socket, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
    if descriptors:
        rights = array.array("i", descriptors)
        connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    else:
        connection.send(data)


def receive(connection: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message with its descriptors (close-on-exec), or None when the other side is gone.

    Raises BlockingIOError on a non-blocking socket with nothing to read."""
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    try:
        data, ancillary, flags, _ = connection.recvmsg(MAX_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    descriptors = _descriptors(ancillary)
    if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(descriptors)
        return None
    message: Message = json.loads(data)
    return message, descriptors


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    received = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    return received.tolist()


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
