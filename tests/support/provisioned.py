"""Functions with provisioned concurrency, deployed and used as their owner would."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.functions import Package, python
from tests.support.server import Function, TorporServer, eventually

PROVISIONED, ON_DEMAND = "provisioned", "on_demand"
WORKER = python(
    """
    print("module", flush=True)
    time.sleep(float(os.environ.get("LOADING", "0")))
    def handler(event, context):
        if event.get("exit"):
            os._exit(3)
        time.sleep(event.get("sleep", 0))
        return {"boot": BOOT, "booted": BOOTED, "kind": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"],
                "version": context.function_version}
    """
)


class ProvisionedFunction(Function):
    """One qualifier of a function: a version, or an alias."""

    def __init__(self, server: TorporServer, name: str, qualifier: str) -> None:
        super().__init__(server, name, qualifier)
        self.qualifier = qualifier
        self._named = {"FunctionName": name, "Qualifier": qualifier}

    def provision(self, number: int) -> dict[str, Any]:
        """Ask for so many environments."""
        asked: dict[str, Any] = self.server.client.put_provisioned_concurrency_config(
            ProvisionedConcurrentExecutions=number, **self._named
        )
        return asked

    def end(self) -> None:
        self.server.client.delete_provisioned_concurrency_config(**self._named)

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.client.get_provisioned_concurrency_config(**self._named)
        return found

    def status(self) -> str:
        return str(self.config()["Status"])

    def wait(self, status: str = "READY", within: float = 30.0) -> float:
        """Return the time at which its configuration was seen to have this status."""
        eventually(lambda: self.status() == status, within=within, what=f"{self.name} becoming {status}")
        return time.time()

    def standing(self) -> list[dict[str, Any]]:
        """Its provisioned environments."""
        return [entry for entry in self.environments() if entry["start"] == PROVISIONED]

    def on_demand(self) -> list[dict[str, Any]]:
        return [entry for entry in self.environments() if entry["start"] == ON_DEMAND]

    def metrics(self) -> dict[str, Any]:
        """The server's own figures for its version."""
        rows: list[dict[str, Any]] = self.server.statistics()["provisioned"]
        return next(row for row in rows if row["function"] == self.name)


@contextmanager
def published(server: TorporServer, package: Package = WORKER, **configuration: Any) -> Iterator[ProvisionedFunction]:
    """Version 1 of a new function, deleted at the end."""
    with server.deployed(package, **{"MemorySize": 128, **configuration}) as function:
        version = server.client.publish_version(FunctionName=function.name)["Version"]
        yield ProvisionedFunction(server, function.name, version)
