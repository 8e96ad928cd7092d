"""Lines in files of one folder: destinations for development."""

import os
from functools import partial
from pathlib import Path

from torpor.model.errors import TargetDown, TargetRefused
from torpor.model.parcel import ToFile
from torpor.targets.aside import aside

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class ResultFiles:
    """Adds a line for each result."""

    def __init__(self, folder: Path) -> None:
        """It is made when it is needed."""
        self._folder = folder

    async def send(self, parcel: ToFile) -> None:
        """Raises TargetDown or TargetRefused."""
        if not parcel.name or "/" in parcel.name or parcel.name.startswith("."):
            raise TargetRefused(f"{parcel.name!r} is no name of a file.")
        await aside(partial(self._append, parcel))

    def _append(self, parcel: ToFile) -> None:
        path = self._folder / parcel.name
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, _FLAGS, 0o600)
            with open(descriptor, "ab", buffering=0) as file:
                file.write(parcel.line.rstrip(b"\n") + b"\n")
        except OSError as error:
            raise TargetDown(f"The file {path} cannot be written: {error.strerror}.") from error
