"""One call of an operation, and lists in pages."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from torpor.contracts.cloudwatch_logs import limits
from torpor.contracts.cloudwatch_logs.names import Place, group_named
from torpor.contracts.cloudwatch_logs.tokens import item_key, item_token

_Item = TypeVar("_Item")
Key = tuple[float, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The checked input of an operation, and where it arrived."""

    values: Mapping[str, Any]
    place: Place

    @property
    def group(self) -> str:
        """The name of the group that the call is about. Raises ApiFailure."""
        return group_named(self.values, self.place)


Handler: TypeAlias = Callable[[Call], Awaitable[Mapping[str, Any]]]


def page(
    items: Iterable[tuple[Key, _Item]], values: Mapping[str, Any], *, descending: bool = False
) -> tuple[list[_Item], dict[str, str]]:
    """The items behind the call's token in the order of their keys, at most as many as it asks for; and the token of
    the next page as it is shown, if there is one. Raises ApiFailure."""
    ordered = sorted(items, key=lambda item: item[0], reverse=descending)
    if "nextToken" in values:
        after = item_key(values["nextToken"])
        ordered = [item for item in ordered if (item[0] < after if descending else item[0] > after)]
    shown = ordered[: values.get("limit", limits.PAGE_DEFAULT)]
    token = {"nextToken": item_token(shown[-1][0])} if len(ordered) > len(shown) else {}
    return [item for _, item in shown], token
