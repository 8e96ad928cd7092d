"""The server and the client that most tests of AWS's API share, one pair for each module."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.contracts.aws_support import KEYS, Server, serving

from torpor.api.aws import AwsSettings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With access keys and nothing else of its own."""
    with serving(tmp_path_factory.mktemp("code"), AwsSettings(keys=KEYS)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    """With the keys of the module's server, whichever that is."""
    return server.client()
