"""Sandbox providers for the sandbox port suite, one run of the suite for each rung."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio
from tests.support.sandboxes import RUNGS, Rig, RungUnavailable, Workplace, open_provider, write_code

PRIVILEGED = ("root", "rootless")


def _parameter(rung: str) -> object:
    return pytest.param(rung, marks=pytest.mark.privileged) if rung in PRIVILEGED else rung


@pytest.fixture
def place() -> Iterator[Workplace]:
    # Not pytest's own folder: other users must be able to pass through to the code.
    with TemporaryDirectory(prefix="torpor-port-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        workplace = Workplace(state=root / "state", code_root=root / "code", code=root / "code" / "suite")
        write_code(workplace.code)
        yield workplace


@pytest_asyncio.fixture(params=[_parameter(rung) for rung in RUNGS])
async def rig(request: pytest.FixtureRequest, place: Workplace) -> AsyncIterator[Rig]:
    """Every rung in turn, skipping with its reason where the host lacks it."""
    rung: str = request.param
    try:
        provider = await open_provider(rung, place)
    except RungUnavailable as unavailable:
        pytest.skip(str(unavailable))
    try:
        yield Rig(rung, provider, place)
    finally:
        await provider.close()
