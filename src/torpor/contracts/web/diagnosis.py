"""Hints for errors that have their cause in the platform, found in what a server writes (contract 1.2, 1.3)."""

import re

from torpor.contracts.web import limits

READ_ONLY = "Read-only file system"
DENIED = "Permission denied"
SHARED_MEMORY = "Shared Memory: /dev/shm Permission Denied"

_HINTS = {
    READ_ONLY: (
        f"{READ_ONLY}: only /tmp can be written in a serverless service. Send every file that it writes to /tmp, "
        "or deploy it with --persistent, where all of its file system can be written."
    ),
    DENIED: (
        f"{DENIED}: only /tmp can be written, and the server does not run as the root user of its build. Send every "
        "file that it writes to /tmp, and let the build make readable (chmod a+rX) what the server reads."
    ),
    SHARED_MEMORY: (
        f"{SHARED_MEMORY}: shared memory is not supported in a serverless service. Use pipes or sockets between "
        "processes (gunicorn: --worker-tmp-dir /tmp), or deploy it with --persistent."
    ),
}
_MESSAGE = re.compile(r"Read-only file system|Permission denied|EROFS|EACCES|PermissionError", re.IGNORECASE)
_SHARED = re.compile(r"/dev/shm|shm_open|_posixshmem|SemLock|/psm_|shared_memory", re.IGNORECASE)


class Diagnosis:
    """Reads the output of one environment and says each hint once."""

    def __init__(self, *, persistent: bool) -> None:
        self._untold = set() if persistent else set(_HINTS)

    def read(self, output: str) -> list[str]:
        """Lines to add to the log after this piece of output; mostly none."""
        if not self._untold:
            return []
        lines = []
        for match in _MESSAGE.finditer(output):
            kind = _kind(output, match)
            if kind in self._untold:
                self._untold.discard(kind)
                lines.append(f"{_HINTS[kind]}\n")
        return lines


def hint(output: str) -> str:
    """The hint for the last such error in a piece of output; empty if there is none."""
    found = list(_MESSAGE.finditer(output))
    return _HINTS[_kind(output, found[-1])] if found else ""


def _kind(output: str, match: re.Match[str]) -> str:
    """What the error is about; words about shared memory stand near it, mostly on the lines of a stack before it."""
    window = output[max(0, match.start() - limits.HINT_WINDOW) : match.end() + limits.HINT_WINDOW]
    if _SHARED.search(window):
        return SHARED_MEMORY
    return READ_ONLY if match[0].lower() in ("read-only file system", "erofs") else DENIED
