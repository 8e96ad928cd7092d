"""What every SQLite file of the store has in common: how it is opened, and what is said when it fails."""

import os

BUSY_WAIT = 5.0
"""Seconds to wait for another program's lock on a file."""

PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
"""A write-ahead log that is flushed on every commit."""

_REASONS = (
    (("SQLITE_BUSY", "SQLITE_LOCKED"), "is locked by another program; stop that program and try again"),
    (("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH"), "is read-only; make the file and its folder writable"),
    (("SQLITE_CANTOPEN",), "cannot be opened; make sure that its folder exists and is writable"),
    (("SQLITE_FULL",), "cannot grow because the disk is full; free some space and try again"),
    (("SQLITE_CORRUPT", "SQLITE_NOTADB"), "is damaged or not a database; restore a backup"),
)


def prepare_file(path: str) -> None:
    """No other user of the machine may read it: variables and events of functions are in it."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def reason_of(error: BaseException) -> str:
    """What is wrong with the file and what to do, to stand behind its name."""
    original = getattr(error, "orig", None) or error
    name = getattr(original, "sqlite_errorname", "")
    for prefixes, sentence in _REASONS:
        if name.startswith(prefixes):
            return sentence
    return f"cannot be read or written: {getattr(original, 'strerror', None) or original}"
