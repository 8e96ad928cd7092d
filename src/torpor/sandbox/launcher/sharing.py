"""Keeping the memory of forked copies shared.

A copy shares every page with the launcher until either writes to it, and an interpreter writes merely by looking: it
counts references inside each object. Interpreters since 3.12 leave out the count of objects marked immortal. What is
loaded before the first fork lives as long as the launcher anyway, so all of it is marked: that halves what a copy costs
and spares it the page faults. To the code inside only `sys.getrefcount` tells the difference.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import sysconfig
from typing import Any

_IMMORTAL = 0xFFFFFFFF
_KNOWN_LAYOUTS = ((3, 12), (3, 13), (3, 14))


def freeze_memory() -> None:
    """To be called once, single-threaded, when everything to be shared is loaded."""
    gc.collect()
    if _layout_is_known():
        _mark_everything()
    gc.freeze()
    gc.disable()


def _layout_is_known() -> bool:
    """Whether the lower half of an object's first word is a reference count that may say `immortal`."""
    return (
        sys.implementation.name == "cpython"
        and sys.version_info[:2] in _KNOWN_LAYOUTS
        and sys.byteorder == "little"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and not hasattr(sys, "gettotalrefcount")
    )


def _mark_everything() -> None:
    """Mark all objects reachable from those the collector knows."""
    waiting: list[Any] = gc.get_objects()
    while waiting:
        thing = waiting.pop()
        count = ctypes.c_uint32.from_address(id(thing))
        if count.value != _IMMORTAL:
            count.value = _IMMORTAL
            waiting.extend(gc.get_referents(thing))
