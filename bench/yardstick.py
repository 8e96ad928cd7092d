"""The emulator's figures, measured before the server's."""

import math
from dataclasses import dataclass
from pathlib import Path

from bench.load import Outcome

NOTHING = Outcome((), 0, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """Not a number where it was not measured; `program` is the emulator itself, None without it."""

    program: Path | None = None
    warm: Outcome = NOTHING
    eight: Outcome = NOTHING
    cold: Outcome = NOTHING
