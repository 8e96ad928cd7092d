"""Which operation a method and path stand for, in each generation of the API."""

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeAlias
from urllib.parse import unquote

from torpor.api.fc.call import Handler
from torpor.contracts.function_compute.names import Generation

Table: TypeAlias = dict[tuple[str, int], list[tuple[tuple[str, ...], Handler]]]
_FUNCTIONS = {True: "services/{service}/functions", False: "functions"}
_OWNERS = {True: "services/{service}", False: "functions/{function}"}
_CLASSIC_ONLY = frozenset(
    {"on-demand-config", "/on-demand-configs", "/account-settings", "/reservedCapacities", "/reserved-capacities",
     "/tag", "stateful-async-invocations", "F/{function}/stateful-async-invocations/{invocation}",
     "/stateful-async-invocation-functions"}
)  # fmt: skip
_CURRENT_ONLY = frozenset(
    {"concurrency", "/concurrency-configs", "/tags-v2", "/regions", "async-tasks", "F/{function}/async-tasks/{task}",
     "F/{function}/async-tasks/{task}/stop", "/async-invoke-configs"}
)  # fmt: skip


class Operations(Protocol):
    """A group of operations. A path `F…` stands below functions, `O…` below what has versions and aliases, `/…` below
    the API itself, and any other below the API of the generations with services."""

    def routes(self) -> dict[tuple[str, str], Handler]: ...


class Router:
    """The routes of all generations."""

    def __init__(self, *groups: Operations) -> None:
        self._tables: dict[bool, Table] = {True: {}, False: {}}
        for group in groups:
            for (method, pattern), handler in group.routes().items():
                for classic, path in _placed(pattern):
                    parts = tuple(path.split("/"))
                    self._tables[classic].setdefault((method, len(parts)), []).append((parts, handler))

    def find(self, generation: Generation, method: str, path: str) -> tuple[Handler, Mapping[str, str]] | None:
        """The operation and the path's parameters, decoded; None if there is no such operation."""
        parts = path.strip("/").split("/")
        for pattern, handler in self._tables[generation.has_services].get((method, len(parts)), ()):
            values = _match(pattern, parts)
            if values is not None:
                return handler, values
        return None


def _placed(pattern: str) -> Iterator[tuple[bool, str]]:
    """Where a pattern stands in full, with whether that is in the generations with services."""
    for classic in (True, False):
        if pattern.rpartition("/")[2] in (_CURRENT_ONLY if classic else _CLASSIC_ONLY) or pattern in (
            _CURRENT_ONLY if classic else _CLASSIC_ONLY
        ):
            continue
        if pattern.startswith("F"):
            yield classic, _FUNCTIONS[classic] + pattern[1:]
        elif pattern.startswith("O"):
            yield classic, _OWNERS[classic] + pattern[1:]
        elif pattern.startswith("/"):
            yield classic, pattern[1:]
        elif classic:
            yield classic, pattern


def _match(pattern: tuple[str, ...], parts: list[str]) -> dict[str, str] | None:
    values: dict[str, str] = {}
    for wanted, text in zip(pattern, parts, strict=True):
        if wanted.startswith("{"):
            values[wanted.strip("{}")] = unquote(text)
        elif wanted != text:
            return None
    return values
