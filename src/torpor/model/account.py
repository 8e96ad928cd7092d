"""What an account may have: bounds handed to the services by the contract."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageLimits:
    """The largest package, in bytes."""

    zipped: int
    unpacked: int
    """Of the package together with its layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationLimits:
    """How much concurrency functions may set aside."""

    account: int
    """Invocations all functions together may run at once."""
    unreserved_minimum: int
    """What must stay for functions without a reservation."""
