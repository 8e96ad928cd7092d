"""Signed requests to web addresses: the secret in its file, and signatures as any receiver reckons them."""

import base64
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.model.errors import InvalidRequest, StoreUnavailable
from torpor.targets.web import decoded, read_secret, signature

KEY = bytes(range(32))


def encoded(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(size)).decode()


def test_the_secret_is_made_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "webhook.secret"
    made = read_secret(str(path))
    text = path.read_text()

    assert len(made) == 32 and made != bytes(32)
    assert text == f"whsec_{base64.b64encode(made).decode()}\n"
    assert read_secret(str(path)) == made
    assert path.read_text() == text


def test_no_two_servers_make_the_same_secret(tmp_path: Path) -> None:
    assert len({read_secret(str(tmp_path / str(number))) for number in range(20)}) == 20


def test_the_secret_is_for_its_owner_only_whatever_the_process_allows_others(tmp_path: Path) -> None:
    path, before = tmp_path / "webhook.secret", os.umask(0)
    try:
        read_secret(str(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [24, 32, 64])
@pytest.mark.parametrize("form", ["{}", "{}\n", "  {}  \n\n"])
def test_a_secret_that_was_put_there_is_used(tmp_path: Path, size: int, form: str) -> None:
    path = tmp_path / "webhook.secret"
    path.write_text(form.format(encoded(size)))
    assert read_secret(str(path)) == bytes(size)


def test_a_secret_may_lack_its_prefix() -> None:
    assert decoded(base64.b64encode(KEY).decode()) == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "secret",
        encoded(23),
        encoded(65),
        encoded(32)[:-1],
        encoded(32) + "!",
        "whsec_ü" + encoded(32),
        "whsec_" + "A" * 2000,
        "WHSEC_" + base64.b64encode(KEY).decode(),
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
    ],
)
def test_a_malformed_secret_is_refused_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "webhook.secret"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=r"has to be whsec_ and Base64 of 24 to 64 bytes\.$"):
        read_secret(str(path))
    assert path.read_text() == text


def test_a_secret_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "webhook.secret"
    path.write_bytes(b"\xff\x00\xfe" * 20)
    with pytest.raises(InvalidRequest):
        read_secret(str(path))


@pytest.mark.parametrize(
    "prepare",
    [lambda path: path.parent.rmdir(), lambda path: path.mkdir(), lambda path: path.symlink_to(path)],
    ids=["no folder", "a folder", "a circle"],
)
def test_a_secret_that_can_neither_be_read_nor_made_is_told_with_its_file(
    tmp_path: Path, prepare: Callable[[Path], object]
) -> None:
    path = tmp_path / "sub" / "webhook.secret"
    path.parent.mkdir()
    prepare(path)
    with pytest.raises(StoreUnavailable, match=str(path)):
        read_secret(str(path))


def test_a_signature_is_the_one_in_the_description_of_the_standard() -> None:
    """The standard's own example."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    made = signature(decoded(secret), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.skipif(shutil.which("openssl") is None, reason="this host has no openssl")
def test_a_signature_is_what_another_program_reckons(tmp_path: Path) -> None:
    body = '{"ü":1}\n'.encode() + bytes(range(256))
    signed = b"id:success.1700000000." + body
    command = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{KEY.hex()}", "-binary"]
    found = subprocess.run(command, input=signed, capture_output=True, check=True, timeout=20).stdout
    assert signature(KEY, "id:success", 1_700_000_000, body) == "v1," + base64.b64encode(found).decode()


@given(
    key=st.binary(min_size=24, max_size=64),
    identity=st.text(st.characters(codec="ascii", exclude_characters="."), min_size=1, max_size=80),
    moment=st.integers(0, 1 << 40),
    body=st.binary(max_size=2000),
    other=st.binary(max_size=100),
)
def test_signatures_differ_when_anything_that_is_signed_does(
    key: bytes, identity: str, moment: int, body: bytes, other: bytes
) -> None:
    made = signature(key, identity, moment, body)
    assert made.startswith("v1,") and len(base64.b64decode(made[3:], validate=True)) == 32
    assert made == signature(key, identity, moment, body)
    changed = {
        signature(key[::-1] + b"x", identity, moment, body),
        signature(key, identity + "x", moment, body),
        signature(key, identity, moment + 1, body),
        signature(key, identity, moment, body + b"x"),
        *([signature(key, identity, moment, other)] if other != body else []),
    }
    assert made not in changed
