"""Where packages lie below the data folder, and how those of former releases get there."""

import os
import re

from torpor.store.disk import translated

_ARCHIVE = re.compile(r"[0-9a-f]{64}\.zip")
_TREE = re.compile(r"[0-9a-f]{64}")


def settle(folder: str, *, archives: str, trees: str, built: str) -> None:
    """Move what lies directly in `folder`, archives beside their trees, to where it belongs now.

    A tree without an archive was built, and is the only one of its kind. Done again after an end half-way, it goes on.
    """
    with translated(folder):
        for place in (archives, trees, built):
            os.makedirs(place, exist_ok=True)
        names = os.listdir(folder)
        for name in filter(_TREE.fullmatch, names):
            known = f"{name}.zip" in names or os.path.exists(f"{archives}/{name}.zip")
            os.rename(f"{folder}/{name}", f"{trees if known else built}/{name}")
        for name in filter(_ARCHIVE.fullmatch, names):
            os.rename(f"{folder}/{name}", f"{archives}/{name}")
