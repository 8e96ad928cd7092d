"""Where the fixed folders stand on the host, and translating paths to them."""

import contextlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence

FIXED = {"task": "/var/task", "runtime": "/var/runtime", "lang": "/var/lang", "opt": "/opt", "tmp": "/tmp"}
"""The folders' places in a real sandbox."""


SEARCHED = frozenset(
    ("PATH", "PYTHONPATH", "NODE_PATH", "LD_LIBRARY_PATH", "HOME", "XDG_CACHE_HOME", "npm_config_cache", "PIP_TARGET")
)
"""Variables that loaders and package managers read as places; what any other variable means is not known here."""
_ROOTS_HOME = "/root"
# A place stands where a word begins: not within a longer path or an address, nor right after a variable or a quotation.
_BEGINS = r"(?<![\w/.~%@*?+})\]-])(?<![\w/})\]][\"'])"
_ENDS = r"(?![\w.~%@+-])"


class PathTranslation:
    """Fixed paths to host paths, for one sandbox.

    Pure. A path that already is a host path of this sandbox stays as it is, even if it begins like a fixed one (a state
    folder below `/tmp`).
    """

    def __init__(self, paths: Mapping[str, str], code_at: str = FIXED["task"]) -> None:
        fixed = {**FIXED, "task": code_at}
        self._moves = {host: host for host in paths.values()} | {fixed[key]: host for key, host in paths.items()}
        known = sorted(self._moves, key=len, reverse=True)
        self._known = re.compile(_BEGINS + "(" + "|".join(map(re.escape, known)) + ")" + _ENDS)

    def translate(self, value: str) -> str:
        """A path, or a text such as a shell's command, with every fixed path that a word in it begins with moved."""
        return self._known.sub(lambda found: self._moves[found[1]], value)

    def translate_environment(self, environment: Mapping[str, str], tmp: str) -> dict[str, str]:
        """The environment with its `SEARCHED` places moved, and TMPDIR in the private folder `tmp` unless it names a
        place of its own. Nobody is root here: root's home is the private folder too."""
        moved = {name: self.translate(value) if name in SEARCHED else value for name, value in environment.items()}
        if moved.get("HOME") == _ROOTS_HOME:
            moved["HOME"] = tmp
        return {**moved, "TMPDIR": self.translate(environment.get("TMPDIR", tmp))}


def merge_layers(layers: Sequence[str], target: str) -> None:
    """Merge folders into the new folder `target`, later ones winning. Hard links where the disk allows it.

    Raises OSError.
    """
    os.mkdir(target, 0o755)
    for layer in layers:
        _merge(layer, target)


def write_script(path: str, text: str) -> None:
    """Write a program of text. Raises OSError."""
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o755)


def _merge(source: str, target: str) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            place = os.path.join(target, entry.name)
            if entry.is_dir(follow_symlinks=False):
                _make_folder(place)
                _merge(entry.path, place)
            else:
                _clear(place)
                _place_file(entry, place)


def _make_folder(place: str) -> None:
    if os.path.islink(place) or not os.path.isdir(place):
        _clear(place)
        os.mkdir(place, 0o755)


def _clear(place: str) -> None:
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)


def _place_file(entry: os.DirEntry[str], place: str) -> None:
    if entry.is_symlink():
        os.symlink(os.readlink(entry.path), place)
        return
    try:
        os.link(entry.path, place)
    except OSError:
        # Another file system, or a file this user may not link.
        shutil.copy2(entry.path, place)
