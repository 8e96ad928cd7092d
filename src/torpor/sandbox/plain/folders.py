"""Where the fixed folders stand on the host, and translating paths to them."""

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence

FIXED = {"task": "/var/task", "runtime": "/var/runtime", "lang": "/var/lang", "opt": "/opt", "tmp": "/tmp"}
"""The folders' places in a real sandbox."""


def _lies_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


class PathTranslation:
    """Fixed paths to host paths, for one sandbox.

    Pure. A path that already is a host path of this sandbox stays as it is, even if it begins like a fixed one (a state
    folder below `/tmp`).
    """

    def __init__(self, paths: Mapping[str, str], code_at: str = FIXED["task"]) -> None:
        fixed = {**FIXED, "task": code_at}
        moves = [(fixed[key], host) for key, host in paths.items()]
        moves += [(host, host) for host in paths.values()]
        self._moves = sorted(moves, key=lambda move: len(move[0]), reverse=True)

    def translate(self, value: str) -> str:
        """The host's path for a value that begins with a fixed path; any other value unchanged."""
        for folder, host in self._moves:
            if _lies_under(value, folder):
                return host + value[len(folder) :]
        return value

    def translate_environment(self, environment: Mapping[str, str], tmp: str) -> dict[str, str]:
        """The environment as given, with TMPDIR in the private folder `tmp` unless it names a place of its own."""
        return {**environment, "TMPDIR": self.translate(environment.get("TMPDIR", tmp))}


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
