"""Snapshots as the server makes them: out of its pool, for its host, told to the states of versions."""

import os
from collections.abc import Callable

import torpor
from torpor.contracts.lambda_.failures import state_code
from torpor.engine.contract import Contract
from torpor.model.errors import RuntimeMissing
from torpor.model.failure import Failure
from torpor.model.function import FunctionVersion
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.port import SandboxProvider
from torpor.service.states import VersionStates


class SnapshotStates:
    """See `torpor.engine.snapshots.Watcher`."""

    def __init__(self, states: VersionStates, warm: Callable[[FunctionVersion], None]) -> None:
        """`warm` makes what is restored next start quickly."""
        self._states = states
        self._warm = warm

    def pending(self, version: FunctionVersion) -> None:
        self._states.pend(version)

    def ready(self, version: FunctionVersion) -> None:
        self._states.settle(version)

    def at_hand(self, version: FunctionVersion) -> None:
        self._warm(version)

    def failed(self, version: FunctionVersion, reason: str, failure: Failure | None) -> None:
        self._states.fail(version, reason, state_code(failure))


def made_for(version: FunctionVersion, contracts: dict[str, Contract], images: ImageCatalog) -> dict[str, str]:
    """What a process depends on that is not in its snapshot. Raises RuntimeMissing."""
    image = images.resolve(contracts[version.contract].image(version.runtime))
    return {"kernel": os.uname().release, "interpreter": image.version, "torpor": torpor.__version__}


def require_snapshots(provider: SandboxProvider) -> None:
    """Raises RuntimeMissing if this host makes none."""
    found = provider.snapshots()
    if not found.available:
        raise RuntimeMissing(f"This server cannot make the snapshot that the version needs: {found.detail}.")
