"""AWS event streams: binary frames, each a message with named headers (contract 9.9)."""

import struct
import zlib
from collections.abc import Iterable

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_VALUE = struct.Struct(">BH")
_STRING = 7
_FRAMING = _PRELUDE.size + 2 * _CRC.size


def event(kind: str, content_type: str, payload: bytes) -> bytes:
    """The frame of an event of this type; `content_type` is of its payload."""
    return message(((":message-type", "event"), (":event-type", kind), (":content-type", content_type)), payload)


def exception(kind: str, payload: bytes) -> bytes:
    """The frame of a modelled error that ends the stream; the payload is its JSON."""
    headers = ((":message-type", "exception"), (":exception-type", kind), (":content-type", "application/json"))
    return message(headers, payload)


def message(headers: Iterable[tuple[str, str]], payload: bytes) -> bytes:
    """One frame. Header names have at most 255 bytes and values 65,535."""
    fields = b"".join(_header(name, value) for name, value in headers)
    prelude = _PRELUDE.pack(_FRAMING + len(fields) + len(payload), len(fields))
    begun = b"".join((prelude, _CRC.pack(zlib.crc32(prelude)), fields, payload))
    return begun + _CRC.pack(zlib.crc32(begun))


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return bytes((len(key),)) + key + _VALUE.pack(_STRING, len(text)) + text
