"""The host's configuration that programs inside need: certificates, the choice among alternatives, language settings.

It is copied, not mounted, so that nothing of it comes along which only root may read on the host.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat

_TREES = re.compile(
    r"alternatives|ssl|pki|ca-certificates|crypto-policies|ld\.so\.conf\.d|fonts|maven|terminfo"
    r"|(java|php|perl|python|ruby|R|lua|erlang|mono|dotnet|gss)[-0-9._a-z]*"
)
_MOST_BYTES = 12 * 1024 * 1024
"""The whole root is held in memory; what no longer fits is left out."""
_ANYBODY = stat.S_IROTH | stat.S_IXOTH


def copy_trees(source: str, target: str) -> None:
    """Copy the folders meant here from one `/etc` to another. Raises OSError if the target cannot be written."""
    left = _MOST_BYTES
    for name in sorted(os.listdir(source)):
        path = f"{source}/{name}"
        if _TREES.fullmatch(name) and os.path.isdir(path) and not os.path.islink(path):
            left = _copy(path, f"{target}/{name}", left)


def _copy(source: str, target: str, left: int) -> int:
    """Copy what anybody may read; how many bytes may still be copied after it."""
    if os.stat(source).st_mode & _ANYBODY != _ANYBODY:
        return left
    os.makedirs(target, exist_ok=True)
    with os.scandir(source) as entries:
        for entry in entries:
            place = f"{target}/{entry.name}"
            if entry.is_symlink():
                with contextlib.suppress(FileExistsError):
                    os.symlink(os.readlink(entry.path), place)
            elif entry.is_dir():
                left = _copy(entry.path, place, left)
            elif entry.is_file():
                left = _copy_file(entry, place, left)
    return left


def _copy_file(entry: os.DirEntry[str], place: str, left: int) -> int:
    status = entry.stat()
    if not status.st_mode & stat.S_IROTH or status.st_size > left:
        return left
    with contextlib.suppress(FileNotFoundError, PermissionError):
        shutil.copyfile(entry.path, place)
        os.chmod(place, status.st_mode & 0o755)
        return left - status.st_size
    return left
