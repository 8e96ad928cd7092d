"""Environments that are initialised ahead of invocations: what was asked for, and how far that is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """So many environments of a version are kept initialised."""

    number: int
    modified: float = 0.0
    """Seconds since the epoch of the last change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many of them there are now."""

    up: int = 0
    failed: bool = False
    """Starts have failed so often, or one for so long, that nobody should wait for them; they go on all the same."""
    reason: str = ""
    """What the host lacks for more; empty if it is the function that fails, or nothing does."""
