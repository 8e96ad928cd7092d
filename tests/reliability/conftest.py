"""Servers whose ends, disks and destinations are what is tested."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.lives import Lives, lives

SHORT, LONG = 4, 50
"""Rounds in the fast suite, and with --slow."""


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often to do the worst; `TEST_ROUNDS` says another number."""
    wanted = os.environ.get("TEST_ROUNDS")
    return int(wanted) if wanted else LONG if request.config.getoption("--slow") else SHORT


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Lives]:
    """A data folder for several lives of a server."""
    with lives(tmp_path) as made:
        yield made
