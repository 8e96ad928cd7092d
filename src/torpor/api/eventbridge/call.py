"""One call of an operation, and lists in pages."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from torpor.contracts.eventbridge import limits
from torpor.contracts.eventbridge.names import Place
from torpor.contracts.eventbridge.tokens import name_behind, token_of

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The checked input of an operation, and where it arrived."""

    values: Mapping[str, Any]
    place: Place


Handler: TypeAlias = Callable[[Call], Mapping[str, Any]]


def page(items: Iterable[tuple[str, _Item]], values: Mapping[str, Any]) -> tuple[list[_Item], dict[str, str]]:
    """The items behind the call's token in the order of their names, at most as many as it asks for; and the token of
    the next page as it is shown, if there is one. Raises ApiFailure."""
    after = name_behind(values["NextToken"]) if "NextToken" in values else ""
    rest = sorted((item for item in items if item[0] > after), key=lambda item: item[0])
    shown = rest[: values.get("Limit", limits.PAGE_DEFAULT)]
    token = {"NextToken": token_of(shown[-1][0])} if len(rest) > len(shown) else {}
    return [item for _, item in shown], token
