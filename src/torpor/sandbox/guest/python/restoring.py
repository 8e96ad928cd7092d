"""What a Python runtime does about being saved and restored, around the client's own wait for that.

The client asks to be restored and is saved while it waits for the answer. Whoever gets one is a copy, and makes anew
what no two copies may share. A copy whose connection was closed asks again.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from typing import Any

_TYPE = "AWS_LAMBDA_INITIALIZATION_TYPE"
_SEED_BYTES = 64


def prepare() -> None:
    """To be called before the client runs; does nothing in environments that are not made from snapshots."""
    if os.environ.get(_TYPE) != "snap-start":
        return
    kind: Any = sys.modules["awslambdaric.lambda_runtime_client"].LambdaRuntimeClient
    ask = kind.restore_next

    def restore_next(client: Any) -> Any:
        gc.collect()
        gc.freeze()  # its collector writes to what it looks at, and what is written to is not shared by copies
        try:
            answer = ask(client)
        except ConnectionError:
            answer = ask(client)
        renew()
        return answer

    kind.restore_next = restore_next


def renew() -> None:
    """Give this copy random numbers of its own; what asks the kernel for them has them already."""
    random.seed()
    if "ssl" in sys.modules:
        sys.modules["ssl"].RAND_add(os.urandom(_SEED_BYTES), _SEED_BYTES)
    arrays: Any = sys.modules.get("numpy.random")
    if arrays is not None:
        arrays.seed()
