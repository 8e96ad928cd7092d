"""The data folder: opened once, locked, closed in order."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from torpor.model.errors import PlatformError
from torpor.settings import Settings
from torpor.store.code import DiskCodeStore
from torpor.store.metadata import SqlMetadataStore
from torpor.telemetry import Journal


@dataclass(frozen=True, slots=True)
class Stores:
    folder: Path
    metadata: SqlMetadataStore
    code: DiskCodeStore
    journal: Journal
    lock: int

    def close(self) -> None:
        """Flush the log, let the database and the lock go."""
        try:
            self.journal.flush()
        finally:
            self.metadata.close()
            os.close(self.lock)


def open_stores(settings: Settings) -> Stores:
    """Raises PlatformError with what to do."""
    folder = settings.data
    try:
        for part in (folder, folder / "code", folder / "logs"):
            part.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise PlatformError(
            f"The data folder {folder} cannot be used ({error.strerror}); name another with --data."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise PlatformError(
            f"Another Torpor server uses the data folder {folder}; stop it, or name another with --data."
        ) from None
    return Stores(
        folder=folder,
        metadata=SqlMetadataStore(str(folder / "torpor.db")),
        code=DiskCodeStore(str(folder / "code")),
        journal=Journal(str(folder / "logs")),
        lock=lock,
    )
