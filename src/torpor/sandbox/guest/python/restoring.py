"""What a Python runtime does about being saved and restored, around the client's own wait for that.

The client asks to be restored and is saved while it waits for the answer. Whoever gets one is a copy, and makes anew
what no two copies may share. A copy whose connection was closed asks again.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_TYPE = "AWS_LAMBDA_INITIALIZATION_TYPE"
_SEED_BYTES = 64
_REQUEST = b"GET /2018-06-01/runtime/restore/next HTTP/1.1\r\nHost: %s\r\n\r\n"
_ANSWER_BYTES = 4096


def prepare() -> None:
    """To be called before the client runs; does nothing in environments that are not made from snapshots."""
    if os.environ.get(_TYPE) != "snap-start":
        return
    kind: Any = sys.modules["awslambdaric.lambda_runtime_client"].LambdaRuntimeClient
    ask = kind.restore_next

    def restore_next(client: Any) -> None:
        rehearse()
        gc.collect()
        gc.freeze()  # its collector writes to what it looks at, and what is written to is not shared by copies
        if not _restored(client.lambda_runtime_address):
            ask(client)  # again, or it says what is wrong
        renew()

    kind.restore_next = restore_next


def _restored(address: str) -> bool:
    """Ask as the client does, by what a copy needs little memory of its own for."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(_REQUEST % address.encode())
            return connection.recv(_ANSWER_BYTES).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def rehearse() -> None:
    """Do once what every copy does first: what that sets up (OpenSSL's generator alone takes two milliseconds) is then
    done, in memory that they share."""
    renew()
    with contextlib.suppress(RuntimeError), ThreadPoolExecutor(max_workers=1) as executor:  # no thread can be had
        executor.submit(int).result()


def renew() -> None:
    """Give this copy random numbers of its own; what asks the kernel for them has them already."""
    random.seed()
    if "ssl" in sys.modules:
        sys.modules["ssl"].RAND_add(os.urandom(_SEED_BYTES), _SEED_BYTES)
    arrays: Any = sys.modules.get("numpy.random")
    if arrays is not None:
        arrays.seed()
