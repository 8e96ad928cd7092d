"""Lists in pages: a marker stands for the last item shown, so that nothing shifts when others come and go."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.failures_api import invalid_parameter

_Item = TypeVar("_Item")


def page(items: Iterable[tuple[str, _Item]], values: Mapping[str, Any]) -> tuple[list[_Item], dict[str, str]]:
    """At most as many as `values` ask for of the items behind its marker, in the order of their keys; and the marker
    of the next page as it is shown, if there is one. Raises ApiFailure."""
    after, size = marker_of(values), page_size(values)
    rest = sorted((item for item in items if after is None or item[0] > after), key=lambda item: item[0])
    shown = rest[:size]
    return [item for _, item in shown], next_marker(shown[-1][0] if len(rest) > size else None)


def page_size(values: Mapping[str, Any]) -> int:
    """Items on a page."""
    asked: int = values.get("MaxItems", limits.PAGE_DEFAULT)
    return min(asked, limits.PAGE_DEFAULT)


def marker_of(values: Mapping[str, Any]) -> str | None:
    """The key that the call's marker stands for. Raises ApiFailure for a text that never was one."""
    marker = values.get("Marker", "")
    if not marker:
        return None
    try:
        return base64.b64decode(marker, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise invalid_parameter(f"The Marker {marker} is not valid. Start again without one.") from error


def next_marker(key: str | None) -> dict[str, str]:
    """The part of a reply that leads to the next page; empty on the last one."""
    return {} if key is None else {"NextMarker": base64.urlsafe_b64encode(key.encode()).decode()}
