"""The network of one sandbox, laid out inside a fresh network namespace by raw netlink messages.

The namespace has only its loopback device, so nothing outside can be reached directly and no cable to the host has to
be made. Three sockets are the way out; whoever holds their descriptors serves them from the host's side:

* `api` listens on 169.254.100.1:9001, for the runtime and the extensions, and on the loopback addresses, from where
  alone SDKs take credentials;
* `egress` accepts every outgoing IPv4 TCP connection. The default route says that all addresses are local, and a
  netfilter rule turns each connection that is not for the sandbox itself to this socket; the kernel keeps the original
  destination, which `original_destination` reads. So egress needs no device pair, no address translation on the host
  and no privilege outside the namespace.
* `dns` gets name queries sent to 169.254.100.2:53.

There is no IPv6 route at all, so programs that try it first are refused at once and go on with IPv4.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

API_ADDRESS = "169.254.100.1"
API_PORT = 9001
HOST_ADDRESS = "169.254.100.2"
DNS_PORT = 53
_BACKLOG = 128
_EGRESS_BACKLOG = 1024
_LOOPBACK = 1

_REQUEST, _ACKNOWLEDGE, _CREATE, _EXCLUSIVE, _APPEND = 0x1, 0x4, 0x400, 0x200, 0x800
_ERROR = 2
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 20, 24
_SCOPE_HOST, _TABLE_MAIN, _LOCAL, _BOOT = 254, 254, 2, 3

_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END, _NFTABLES = 16, 17, 10
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 3, 6
_HOOK_OUTPUT, _DESTINATION_NAT = 3, -100
_REGISTER = 1
_EQUAL, _UNEQUAL = 0, 1
_NESTED = 0x8000
_ORIGINAL_DESTINATION = 80


@dataclass(frozen=True)
class NetworkSockets:
    """The sockets of a sandbox. Without egress, `egress` and `dns` are None and `egress_problem` says why."""

    api: socket.socket
    egress: socket.socket | None
    dns: socket.socket | None
    egress_problem: str = ""


def configure(egress: bool = True) -> NetworkSockets:
    """Lay out the network namespace this process is in; needs CAP_NET_ADMIN and CAP_NET_BIND_SERVICE over it.

    Call once in a fresh namespace. Raises OSError if even the loopback device cannot be set up; missing netfilter
    support only costs egress.
    """
    _raise_loopback()
    with contextlib.ExitStack() as undo:
        api = undo.enter_context(_bound(socket.SOCK_STREAM, "", API_PORT))
        api.listen(_BACKLOG)
        try:
            out, names = _open_egress() if egress else (None, None)
            problem = "" if egress else "switched off"
        except OSError as error:
            out, names = None, None
            problem = f"the kernel lacks nf_tables with NAT, or forbids it here: {error.strerror}"
        undo.pop_all()
    return NetworkSockets(api, out, names, problem)


def original_destination(connection: socket.socket) -> tuple[str, int]:
    """Where a connection accepted on `egress` was meant to go: IPv4 address and port. Raises OSError."""
    _, port, address = struct.unpack("=2s2s4s8x", connection.getsockopt(socket.IPPROTO_IP, _ORIGINAL_DESTINATION, 16))
    return socket.inet_ntoa(address), int.from_bytes(port, "big")


def _open_egress() -> tuple[socket.socket, socket.socket]:
    with contextlib.ExitStack() as undo:
        out = undo.enter_context(_bound(socket.SOCK_STREAM, "127.0.0.1", 0))
        out.listen(_EGRESS_BACKLOG)
        names = undo.enter_context(_bound(socket.SOCK_DGRAM, HOST_ADDRESS, DNS_PORT))
        _redirect(out.getsockname()[1])
        _route_everything_here()
        undo.pop_all()
    return out, names


def _bound(kind: int, address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


def _raise_loopback() -> None:
    link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, _LOOPBACK, 1, 1)
    messages = [_message(_NEW_LINK, _ACKNOWLEDGE, link)]
    for address in (API_ADDRESS, HOST_ADDRESS):
        packed = socket.inet_aton(address)
        body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, _SCOPE_HOST, _LOOPBACK)
        body += _attribute(1, packed) + _attribute(2, packed)
        messages.append(_message(_NEW_ADDRESS, _ACKNOWLEDGE | _CREATE | _EXCLUSIVE, body))
    _talk(socket.NETLINK_ROUTE, b"".join(messages), len(messages))


def _route_everything_here() -> None:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _BOOT, _SCOPE_HOST, _LOCAL, 0)
    body += _attribute(4, struct.pack("=I", _LOOPBACK)) + _attribute(7, socket.inet_aton(API_ADDRESS))
    _talk(socket.NETLINK_ROUTE, _message(_NEW_ROUTE, _ACKNOWLEDGE | _CREATE | _EXCLUSIVE, body), 1)


def _redirect(port: int) -> None:
    """One table with one chain with one rule: outgoing TCP that is not for the sandbox itself goes to `port`."""
    table, chain = b"torpor\0", b"egress\0"
    hook = _attribute(1, _be32(_HOOK_OUTPUT)) + _attribute(2, struct.pack(">i", _DESTINATION_NAT))
    chain_body = _attribute(1, table) + _attribute(3, chain) + _nest(4, hook) + _attribute(7, b"nat\0")
    rule_body = _attribute(1, table) + _attribute(2, chain) + _nest(4, b"".join(_rule(port)))
    batch = [
        _message(_BATCH_BEGIN, 0, struct.pack(">BBH", socket.AF_UNSPEC, 0, _NFTABLES)),
        _table_message(_NEW_TABLE, _CREATE, _attribute(1, table)),
        _table_message(_NEW_CHAIN, _CREATE, chain_body),
        _table_message(_NEW_RULE, _CREATE | _APPEND, rule_body),
        _message(_BATCH_END, 0, struct.pack(">BBH", socket.AF_UNSPEC, 0, _NFTABLES)),
    ]
    _talk(_NETFILTER, b"".join(batch), 3)


def _rule(port: int) -> Iterator[bytes]:
    yield _expression("meta", _attribute(2, _be32(16)) + _attribute(1, _be32(_REGISTER)))
    yield _compare(_EQUAL, bytes([socket.IPPROTO_TCP]))
    load = _attribute(1, _be32(_REGISTER)) + _attribute(2, _be32(1)) + _attribute(3, _be32(16))
    yield _expression("payload", load + _attribute(4, _be32(1)))
    yield _compare(_UNEQUAL, b"\x7f")
    yield _expression("payload", load + _attribute(4, _be32(4)))
    yield _compare(_UNEQUAL, socket.inet_aton(API_ADDRESS))
    yield _expression("immediate", _attribute(1, _be32(_REGISTER)) + _nest(2, _attribute(1, struct.pack(">H", port))))
    yield _expression("redir", _attribute(1, _be32(_REGISTER)))


def _compare(operator: int, value: bytes) -> bytes:
    body = _attribute(1, _be32(_REGISTER)) + _attribute(2, _be32(operator)) + _nest(3, _attribute(1, value))
    return _expression("cmp", body)


def _expression(name: str, body: bytes) -> bytes:
    return _nest(1, _attribute(1, name.encode() + b"\0") + _nest(2, body))


def _table_message(kind: int, flags: int, body: bytes) -> bytes:
    header = struct.pack(">BBH", socket.AF_INET, 0, 0)
    return _message(_NFTABLES << 8 | kind, _ACKNOWLEDGE | flags, header + body)


def _message(kind: int, flags: int, body: bytes) -> bytes:
    padded = body + b"\0" * (-len(body) % 4)
    return struct.pack("=IHHII", 16 + len(padded), kind, _REQUEST | flags, 1, 0) + padded


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _nest(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _be32(value: int) -> bytes:
    return struct.pack(">I", value)


def _talk(protocol: int, messages: bytes, acknowledgements: int) -> None:
    """Send requests and read their answers; raises OSError for the first that failed."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as kernel:
        kernel.bind((0, 0))
        # The kernel works the requests off during the send, so every answer is already here: never wait for one.
        kernel.sendto(messages, (0, 0))
        while acknowledgements > 0:
            try:
                data = kernel.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                raise OSError(errno.EIO, "the kernel left a netlink request unanswered") from None
            acknowledgements -= _check(data)


def _check(data: bytes) -> int:
    """How many requests these answers are for; raises OSError if one failed."""
    count = 0
    while len(data) >= 16:
        length, kind, _, _, _ = struct.unpack_from("=IHHII", data)
        if kind == _ERROR:
            count += 1
            number = -struct.unpack_from("=i", data, 16)[0]
            if number:
                raise OSError(number, os.strerror(number))
        data = data[max(16, (length + 3) & ~3) :]
    return count
