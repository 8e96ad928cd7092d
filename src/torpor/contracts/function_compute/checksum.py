"""The checksum of packages: CRC-64 (ECMA-182), as the clients compute it."""

import ctypes
import lzma
from collections.abc import Callable

Sum = Callable[[bytes], int]

_LIBRARY = "liblzma.so.5"
_SIZE = 8
_FOOTER = 12
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 0, "mode": lzma.MODE_FAST, "dict_size": 4096}]


def checksum(archive: bytes) -> str:
    """In decimal. Other threads run meanwhile."""
    return str(_sum(archive))


def from_library() -> Sum | None:
    """The function of the library for xz, whose containers use just this checksum; None where it is not there.

    Where it is, Python's own `lzma` has loaded it already.
    """
    try:
        function = ctypes.CDLL(_LIBRARY).lzma_crc64
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    function.restype = ctypes.c_uint64
    return lambda archive: int(function(archive, len(archive), 0))


def from_container(archive: bytes) -> int:
    """Made into such a container for its sake, which ends each block with the checksum: slow for large archives."""
    if not archive:
        return 0
    container = lzma.compress(archive, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=_FILTERS)
    index = (int.from_bytes(container[-8:-4], "little") + 1) * 4
    end = len(container) - _FOOTER - index
    return int.from_bytes(container[end - _SIZE : end], "little")


_sum: Sum = from_library() or from_container
