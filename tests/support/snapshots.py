"""Functions whose published versions are made from snapshots."""

import time
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

from tests.support.functions import PYTHON, Package, python
from tests.support.server import Function, LogEvent, Reply, TorporServer, eventually

ON = {"ApplyOn": "PublishedVersions"}
HOOKS = "from snapshot_restore_py import register_after_restore, register_before_snapshot\n"
NEEDED = PYTHON != "python3.11"
"""Whether this host has a Python that can be saved."""


def saved(source: str) -> Package:
    """A Python function; `source` finds the decorators for hooks defined."""
    return python(HOOKS + dedent(source))


@dataclass(frozen=True, slots=True)
class Version:
    """A published version."""

    function: Function
    number: str

    @property
    def server(self) -> TorporServer:
        return self.function.server

    def state(self) -> dict[str, Any]:
        """Its configuration, which has its state."""
        found: dict[str, Any] = self.server.client.get_function_configuration(
            FunctionName=self.function.name, Qualifier=self.number
        )
        return found

    def settled(self, within: float = 30.0) -> dict[str, Any]:
        """Its configuration once it is not pending any more."""
        return eventually(
            lambda: found if (found := self.state())["State"] != "Pending" else None, within=within, what="publishing"
        )

    def invoke(self, event: Any = None) -> Reply:
        return Function(self.server, f"{self.function.name}:{self.number}").invoke(event)

    def start(self, event: Any = None) -> Any:
        """Run it once while the test goes on."""
        return self.server.submit(lambda: self.invoke(event))

    def logs(self) -> list[LogEvent]:
        return [entry for entry in self.function.logs() if f"[{self.number}]" in entry.stream]

    def lines(self) -> list[str]:
        return [line for entry in self.logs() for line in entry.message.splitlines()]

    def environments(self) -> list[dict[str, Any]]:
        return [entry for entry in self.function.environments() if entry["version"] == self.number]

    def recycle(self) -> None:
        """Wait until none of its environments is left, on a server that uses each once."""
        eventually(lambda: not self.environments(), what="its environments ending")


def publish(function: Function, *, settle: bool = True) -> Version:
    """The function as it is, as a version; ready unless told otherwise."""
    answer = function.server.client.publish_version(FunctionName=function.name)
    version = Version(function, answer["Version"])
    if settle:
        found = version.settled()
        assert found["State"] == "Active", found
    return version


def published_at(function: Function) -> tuple[Version, float]:
    """As `publish`, and the time at which that was asked for."""
    now = time.time()
    return publish(function), now
