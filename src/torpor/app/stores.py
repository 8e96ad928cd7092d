"""The data folder: opened once, locked, closed in order."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from torpor.model.errors import InvalidRequest, PlatformError
from torpor.settings import Settings
from torpor.store.code import DiskCodeStore
from torpor.store.events import SqliteEventStore
from torpor.store.homes import DiskArchiveHome
from torpor.store.layout import settle
from torpor.store.metadata import SqlMetadataStore
from torpor.store.ports import ArchiveHome
from torpor.store.snapshots import SnapshotStore, read_key
from torpor.telemetry import Journal

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stores:
    folder: Path
    metadata: SqlMetadataStore
    code: DiskCodeStore
    journal: Journal
    snapshots: SnapshotStore
    events: SqliteEventStore
    key: bytes
    """What is kept encrypted is encrypted with it."""
    lock: int

    def close(self) -> None:
        """Flush the log, let the database and the lock go."""
        try:
            self.journal.flush()
        finally:
            self.metadata.close()
            self.events.close()
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
    key = read_key(str(settings.snapshot_key or folder / "snapshot.key"))
    return Stores(
        folder=folder,
        snapshots=SnapshotStore(str(folder / "snapshots"), key),
        key=key,
        metadata=SqlMetadataStore(str(folder / "torpor.db")),
        events=SqliteEventStore(str(folder / "events.db")),
        code=_code_store(settings),
        journal=Journal(str(folder / "logs"), settings.log_group_mb * _MIB),
        lock=lock,
    )


def _code_store(settings: Settings) -> DiskCodeStore:
    code = settings.data / "code"
    trees, built = str(code / "trees"), str(code / "built")
    settle(str(code), archives=str(settings.data / "packages"), trees=trees, built=built)
    return DiskCodeStore(trees, _home(settings), built=built, bound=settings.code_cache_mb * _MIB)


def _home(settings: Settings) -> ArchiveHome:
    if not settings.code_store:
        return DiskArchiveHome(str(settings.data / "packages"))
    if len(settings.code_store_keys) > 1:
        raise InvalidRequest("code_store_keys: the code store takes one key pair.", what="code_store_keys")
    # Imported only when needed: most servers keep their archives on the disk.
    from torpor.store.objects import ObjectArchiveHome

    key = next(iter(settings.code_store_keys.items()), None)
    return ObjectArchiveHome(
        settings.code_store, endpoint=settings.code_store_endpoint, key=key, region=settings.region
    )
