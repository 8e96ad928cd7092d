"""How an environment comes to be ready."""

from enum import StrEnum


class Start(StrEnum):
    ON_DEMAND = "on_demand"
    """Initialised for an invocation, or a moment before one is expected."""
    PROVISIONED = "provisioned"
    """Initialised ahead, because so many environments have to be kept."""
    SAVED = "saved"
    """Initialised to be saved: it serves nothing, its snapshot does."""
    RESTORED = "restored"
    """Taken from its version's snapshot."""
