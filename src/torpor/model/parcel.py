"""What is sent to an event's destination, by the way it is sent."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from torpor.model.event import Event


class ToFunction(msgspec.Struct, frozen=True, kw_only=True):
    """An event for another function of this server."""

    event: Event


class ToService(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a cloud service's operation, by the names that its client library has for both."""

    service: str
    operation: str
    values: Mapping[str, Any]
    region: str


class ToWeb(msgspec.Struct, frozen=True, kw_only=True):
    """A signed request to a web address."""

    url: str
    identity: str
    """The same whenever this is sent again."""
    body: bytes
    content_type: str = "application/json"


class ToFile(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a file in the server's own folder for that."""

    name: str
    line: bytes


Parcel: TypeAlias = ToFunction | ToService | ToWeb | ToFile
