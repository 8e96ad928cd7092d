"""Names of services: what a user writes, and what the server keeps them under."""

import re

from torpor.contracts.web import limits
from torpor.model.errors import InvalidRequest

SPACE = "web/"
"""Services stand in a space of their own, so that functions' names are free of theirs."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


def checked_name(name: str) -> str:
    """The name as it is. Raises InvalidRequest if it cannot stand in a host name."""
    if len(name) > limits.NAME_MAX or not _NAME.fullmatch(name):
        rule = f"use 1 to {limits.NAME_MAX} of a-z, 0-9 and -, with no - at either end"
        raise InvalidRequest(f"{name[:80]!r} cannot name a service: {rule}.")
    return name


def record_name(name: str) -> str:
    """What the service's record is called."""
    return SPACE + name


def service_name(record: str) -> str:
    """The service's own name, out of its record's."""
    return record.removeprefix(SPACE)
