"""Servers for the tests that use the product from outside."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.functions import NODE, PYTHON, Package
from tests.support.server import Function, TorporServer

Deploy = Callable[..., Function]
MakeServer = Callable[..., TorporServer]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorporServer]:
    """The server with default settings that most tests share."""
    yield from _running(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeServer]:
    """Makes servers with settings of their own; the tests of a module share one for the same settings."""
    servers: dict[str, TorporServer] = {}
    with ExitStack() as stack:

        def make(**settings: Any) -> TorporServer:
            key = repr(sorted(settings.items()))
            if key not in servers:
                made = TorporServer(tmp_path_factory.mktemp("server"), **settings)
                stack.callback(made.stop)
                servers[key] = made
            return servers[key]

        yield make


@pytest.fixture
def deploy(server: TorporServer) -> Iterator[Deploy]:
    """Deploys functions that are deleted after the test, on the shared server unless told otherwise with `on`."""
    with ExitStack() as stack:

        def deploy(package: Package, *, on: TorporServer | None = None, **configuration: Any) -> Function:
            target = on or server
            require(target, package.runtime)
            return stack.enter_context(target.deployed(package, **configuration))

        yield deploy


def require(server: TorporServer, runtime: str) -> None:
    """Skip the test if the host has no interpreter for this runtime."""
    if runtime in (PYTHON, NODE) and runtime not in server.runtimes:
        pytest.skip(f"this host has no interpreter for {runtime}")


@pytest.fixture(autouse=True)
def sandbox_where_needed(request: pytest.FixtureRequest) -> None:
    """A privileged test uses `/tmp`, limits or the network of a sandbox, and is skipped where the host offers none."""
    if request.node.get_closest_marker("privileged") is not None:
        require_sandbox(request.getfixturevalue("server"))


def require_sandbox(server: TorporServer) -> None:
    """Skip the test if the host offers no sandbox."""
    if not server.isolation.startswith("sandbox"):
        pytest.skip("this host offers no sandbox: functions run as plain processes, without limits")


def _running(base: Path, **settings: Any) -> Iterator[TorporServer]:
    server = TorporServer(base, **settings)
    yield server
    server.stop()
