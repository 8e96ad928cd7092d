"""The phases of an environment: one frozen value each, carrying exactly the data that exists in that phase."""

from enum import StrEnum

import msgspec


class PhaseName(StrEnum):
    PROVISIONING = "provisioning"
    INITIALIZING = "initializing"
    REINITIALIZING = "reinitializing"
    SAVING = "saving"
    RESTORING = "restoring"
    IDLE = "idle"
    SERVING = "serving"
    QUIESCING = "quiescing"
    FROZEN = "frozen"
    RESETTING = "resetting"
    UNINITIALIZED = "uninitialized"
    STOPPING = "stopping"
    GONE = "gone"

    __hash__ = str.__hash__  # the tables are keyed by it on every event


class Provisioning(msgspec.Struct, frozen=True, tag=False):
    """The sandbox is being made."""

    name = PhaseName.PROVISIONING


class Initializing(msgspec.Struct, frozen=True):
    """Agents start under the Init limit, outside any invocation."""

    started: float
    name = PhaseName.INITIALIZING


class Reinitializing(msgspec.Struct, frozen=True):
    """Agents start again inside an invocation, under that invocation's deadline."""

    started: float
    name = PhaseName.REINITIALIZING


class Saving(msgspec.Struct, frozen=True):
    """Init is over, and the runtime is being saved; the environment ends with that."""

    name = PhaseName.SAVING


class Restoring(msgspec.Struct, frozen=True):
    """The runtime goes on from a snapshot, under the limit of that. `woken` is when it was told to; 0 before."""

    started: float
    woken: float = 0.0
    name = PhaseName.RESTORING


class Idle(msgspec.Struct, frozen=True):
    """Everything is ready and nothing runs; the processes are not frozen yet, or never will be."""

    name = PhaseName.IDLE


class Serving(msgspec.Struct, frozen=True):
    """At least one invocation runs."""

    name = PhaseName.SERVING


class Quiescing(msgspec.Struct, frozen=True):
    """The hook that precedes a freeze runs."""

    name = PhaseName.QUIESCING


class Frozen(msgspec.Struct, frozen=True):
    """Ready, and no process gets any CPU."""

    name = PhaseName.FROZEN


class Resetting(msgspec.Struct, frozen=True):
    """After a failure the processes end; the sandbox, and with it `/tmp`, stays."""

    reason: str
    deadline: float
    name = PhaseName.RESETTING


class Uninitialized(msgspec.Struct, frozen=True):
    """The sandbox stands empty; the next invocation initialises again."""

    name = PhaseName.UNINITIALIZED


class Stopping(msgspec.Struct, frozen=True):
    """The environment ends; its processes may have a moment left."""

    reason: str
    started: float
    deadline: float
    asked: bool = False
    """The runtime's own hook runs first; its processes are told to end once it is over."""
    name = PhaseName.STOPPING


class Gone(msgspec.Struct, frozen=True):
    """Nothing is left."""

    reason: str
    name = PhaseName.GONE


Phase = (
    Provisioning
    | Initializing
    | Reinitializing
    | Saving
    | Restoring
    | Idle
    | Serving
    | Quiescing
    | Frozen
    | Resetting
    | Uninitialized
    | Stopping
    | Gone
)
