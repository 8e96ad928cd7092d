"""Port numbers where sandboxes share the host's network: each server gets one that nobody uses."""

import socket
from contextlib import suppress


class PortBook:
    """Ports given to the sandboxes of one provider, so that two servers that start at once get different ones."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, int], int] = {}

    def give(self, sandbox: str, wanted: int) -> int:
        """`wanted` if it is free, else a free one; the same answer to the same question until `release`.

        Raises OSError if the host has no port left."""
        key = (sandbox, wanted)
        if key not in self._given:
            taken = wanted in self._given.values() or not _is_free(wanted)
            self._given[key] = self._any() if taken else wanted
        return self._given[key]

    def release(self, sandbox: str) -> None:
        """The sandbox is gone."""
        for key in [key for key in self._given if key[0] == sandbox]:
            del self._given[key]

    def _any(self) -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("", 0))
                number: int = probe.getsockname()[1]
            if number not in self._given.values():
                return number


def _is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe, suppress(OSError, OverflowError):
        # As servers do: connections of an earlier one that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("", port))
        probe.listen(1)
        return True
    return False
