"""The limits of deployment packages, just under and just over."""

import http.client
import io
import json
import zipfile
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from tests.journeys.conftest import Deploy
from tests.support.functions import PROVIDED, Package, archive
from tests.support.server import ROLE, TorporServer

ZIPPED_MAX = 52_428_800
UNZIPPED_MAX = 262_144_000
REQUEST_MAX = 70_167_211
BOOTSTRAP = "#!/bin/sh\nsleep 60\n"


def _zipped_to(size: int) -> bytes:
    """An archive of exactly this many bytes."""
    empty = len(archive({"bootstrap": BOOTSTRAP, "filler": b""}, compression=zipfile.ZIP_STORED))
    made = archive({"bootstrap": BOOTSTRAP, "filler": bytes(size - empty)}, compression=zipfile.ZIP_STORED)
    assert len(made) == size
    return made


def _unzipped_to(size: int) -> bytes:
    """A small archive that is exactly this many bytes once unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package:
        package.writestr("bootstrap", BOOTSTRAP)
        with package.open("filler", "w") as filler:
            left = size - len(BOOTSTRAP)
            while left:
                left -= filler.write(bytes(min(left, 1 << 22)))
    return buffer.getvalue()


def _package(content: bytes) -> Package:
    return Package(archive=content, runtime=PROVIDED, handler="unused")


def _refusal(server: TorporServer, content: bytes) -> tuple[int, str]:
    """Status and text for a function with this package."""
    with pytest.raises(server.client.exceptions.ClientError) as refused, server.deployed(_package(content)):
        pass
    response = refused.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


def _post(server: TorporServer, size: int) -> tuple[int, str]:
    """Status and text for a CreateFunction request whose body has exactly this many bytes."""
    body = json.dumps({"FunctionName": "too-large", "Role": ROLE, "Code": {"ZipFile": ""}}).encode()
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    try:
        connection.request("POST", "/2015-03-31/functions", _parts(body, size), {"Content-Length": str(size)})
        answer = connection.getresponse()
        value = json.loads(answer.read())
        return answer.status, value.get("message") or value.get("Message")
    finally:
        connection.close()


def _parts(body: bytes, size: int) -> Iterator[bytes]:
    yield body
    left = size - len(body)
    while left:
        part = bytes(min(left, 1 << 20)).replace(b"\0", b" ")
        left -= len(part)
        yield part


@pytest.mark.fact("L-083")
def test_package_at_the_zipped_limit_is_taken_and_one_byte_more_refused(server: TorporServer, deploy: Deploy) -> None:
    assert deploy(_package(_zipped_to(ZIPPED_MAX))).configuration()["CodeSize"] == ZIPPED_MAX

    status, message = _refusal(server, _zipped_to(ZIPPED_MAX + 1))

    assert (status, message) == (400, f"Zipped size must be smaller than {ZIPPED_MAX} bytes")


@pytest.mark.fact("L-083")
def test_package_at_the_unzipped_limit_is_taken_and_one_byte_more_refused(server: TorporServer, deploy: Deploy) -> None:
    deploy(_package(_unzipped_to(UNZIPPED_MAX)))

    status, message = _refusal(server, _unzipped_to(UNZIPPED_MAX + 1))

    assert (status, message) == (400, f"Unzipped size must be smaller than {UNZIPPED_MAX} bytes")


@pytest.mark.fact("L-083")
def test_request_over_the_body_limit_is_refused_and_one_within_is_read(server: TorporServer) -> None:
    status, message = _post(server, REQUEST_MAX)
    assert "Request must be smaller" not in message
    assert status == 400

    status, message = _post(server, REQUEST_MAX + 1)

    text = f"Request must be smaller than {REQUEST_MAX} bytes for the CreateFunction operation"
    assert (status, message) == (413, text)
