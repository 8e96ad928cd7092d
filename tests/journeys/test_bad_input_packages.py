"""Packages that are no packages: each is refused in the API's own form, and nothing of it is left on the disk."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.journeys.conftest import Deploy
from tests.support.functions import PROVIDED, archive, python
from tests.support.server import ROLE, TorporServer

UNZIPPED_MAX = 262_144_000
BROKEN = "Could not unzip uploaded file. Please check your file, then try to upload again."
TOO_LARGE = f"Unzipped size must be smaller than {UNZIPPED_MAX} bytes"


def _entry(name: str, content: bytes, mode: int) -> bytes:
    """A good file, then one entry with any name and mode."""
    buffer = io.BytesIO(archive({"bootstrap": "#!/bin/sh\n"}))
    with zipfile.ZipFile(buffer, "a") as package:
        info = zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0))
        info.create_system = 3
        info.external_attr = mode << 16
        package.writestr(info, content)
    return buffer.getvalue()


def _file(name: str) -> Callable[[], bytes]:
    return lambda: _entry(name, b"evil", stat.S_IFREG | 0o755)


def _link(target: str) -> Callable[[], bytes]:
    return lambda: _entry("link", target.encode(), stat.S_IFLNK | 0o777)


def _bomb(size: int = UNZIPPED_MAX + 1) -> bytes:
    buffer = io.BytesIO()
    package = zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with package, package.open("zeros", "w") as zeros:
        for _ in range(size >> 20):
            zeros.write(bytes(1 << 20))
        zeros.write(bytes(size & 0xFFFFF))
    assert len(buffer.getvalue()) < 4 << 20
    return buffer.getvalue()


def _lying_bomb() -> bytes:
    """The same, with an index that tells of one byte."""
    made = bytearray(_bomb())
    index = made.rindex(b"PK\x01\x02")
    struct.pack_into("<I", made, index + 24, 1)
    return bytes(made)


def _overlapping_bomb() -> bytes:
    """Five hundred entries of the index that share the bytes of one file."""
    single = archive({"zeros": bytes(1 << 20)})
    start = single.rindex(b"PK\x01\x02")
    end = single.rindex(b"PK\x05\x06")
    entry, count = single[start:end], 500
    entries = b"".join(entry.replace(b"zeros", b"z%04d" % number) for number in range(count))
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(entries), start, 0)
    return single[:start] + entries + tail


def _torn() -> bytes:
    """An archive whose middle is lost."""
    whole = archive({"bootstrap": b"\x00\x01\x02" * 50_000 + bytes(range(256)) * 200}, compression=zipfile.ZIP_STORED)
    return whole[:40_000] + whole[90_000:]


EVIL: dict[str, tuple[Callable[[], bytes], str]] = {
    "no archive": (lambda: b"this is no archive", BROKEN),
    "nothing": (lambda: b"", "Uploaded file must be a non-empty zip"),
    "only an index": (lambda: archive({}), BROKEN),
    "only directories": (lambda: _with_directories(), BROKEN),
    "cut off": (lambda: archive({"bootstrap": "x" * 1000})[:-30], BROKEN),
    "torn": (_torn, BROKEN),
    "zip slip": (_file("../../../evil"), BROKEN),
    "zip slip inside": (_file("a/../../evil"), BROKEN),
    "zip slip with backslashes": (_file("..\\..\\evil"), BROKEN),
    "absolute": (_file("/tmp/torpor-evil"), BROKEN),
    "absolute link": (_link("/etc/passwd"), BROKEN),
    "link out of the tree": (_link("../../../../etc/passwd"), BROKEN),
    "device": (lambda: _entry("disk", b"", stat.S_IFBLK | 0o666), BROKEN),
    "pipe": (lambda: _entry("pipe", b"", stat.S_IFIFO | 0o666), BROKEN),
    "file through a link": (lambda: _through_a_link(), BROKEN),
    "endless name": (_file("x" * 300), BROKEN),
    "endless depth": (_file("d/" * 1000 + "x"), BROKEN),
    "bomb": (_bomb, TOO_LARGE),
    "bomb that lies": (_lying_bomb, BROKEN),
    "bomb of overlaps": (_overlapping_bomb, BROKEN),
}


def _with_directories() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        package.writestr("folder/", b"")
    return buffer.getvalue()


def _through_a_link() -> bytes:
    buffer = io.BytesIO(_entry("link", b"/tmp", stat.S_IFLNK | 0o777))
    with zipfile.ZipFile(buffer, "a") as package:
        package.writestr("link/torpor-evil", b"evil")
    return buffer.getvalue()


def _listing(server: TorporServer) -> dict[str, int]:
    """Every file below the server's folder, packages with their size; sandboxes and logs are left out."""
    found = {}
    for path in server.base.rglob("*"):
        name = str(path.relative_to(server.base))
        if not name.startswith(("data/sandboxes/", "data/logs")):
            found[name] = path.lstat().st_size if name.startswith("data/code/") and not path.is_dir() else 0
    return found


def _refusal(server: TorporServer, content: bytes) -> tuple[int, str, str]:
    """Status, code and text of CreateFunction with this package."""
    client = server.new_client(parameter_validation=False)
    with pytest.raises(client.exceptions.ClientError) as refused:
        client.create_function(
            FunctionName="evil", Role=ROLE, Runtime=PROVIDED, Handler="unused", Code={"ZipFile": content}
        )
    client.close()
    response = refused.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]


@pytest.mark.parametrize("kind", EVIL)
def test_evil_package_is_refused_and_leaves_nothing(server: TorporServer, kind: str) -> None:
    make, text = EVIL[kind]
    content = make()
    before = _listing(server)

    refusal = _refusal(server, content)

    assert refusal == (400, "InvalidParameterValueException", text)
    assert _listing(server) == before
    assert not Path("/tmp/torpor-evil").exists()
    with pytest.raises(server.client.exceptions.ResourceNotFoundException):
        server.client.get_function(FunctionName="evil")


def test_evil_new_code_is_refused_and_the_old_goes_on(server: TorporServer, deploy: Deploy) -> None:
    function = deploy(python("def handler(event, context): return BOOT"))
    boot = function.invoke().payload
    before, revision = _listing(server), function.configuration()["RevisionId"]

    for content in (_bomb(), archive({}), _entry("../evil", b"evil", stat.S_IFREG | 0o755)):
        with pytest.raises(server.client.exceptions.InvalidParameterValueException):
            server.client.update_function_code(FunctionName=function.name, ZipFile=content)

    assert function.invoke().payload == boot
    assert function.configuration()["RevisionId"] == revision
    assert _code(_listing(server)) == _code(before)


def test_evil_layer_is_refused_and_leaves_nothing(server: TorporServer) -> None:
    before = _listing(server)

    for content, text in ((_bomb(), TOO_LARGE), (_entry("../evil", b"", stat.S_IFREG | 0o755), BROKEN)):
        with pytest.raises(server.client.exceptions.InvalidParameterValueException) as refused:
            server.client.publish_layer_version(LayerName="evil", Content={"ZipFile": content})
        assert refused.value.response["Error"]["Message"] == text

    assert _listing(server) == before
    assert server.client.list_layer_versions(LayerName="evil")["LayerVersions"] == []


def _code(listing: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in listing.items() if name.startswith("data/code/")}
