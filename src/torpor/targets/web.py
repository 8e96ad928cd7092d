"""Signed requests to web addresses, as https://www.standardwebhooks.com lays down: the receiver can tell that they are
this server's, unchanged and new."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import secrets
from functools import partial
from typing import Any

from torpor.model.clock import Clock
from torpor.model.errors import InvalidRequest, StoreUnavailable, TargetDown, TargetRefused
from torpor.model.parcel import ToWeb
from torpor.targets.aside import aside

PREFIX = "whsec_"
_KEY_BYTES = 32
_KEY_MIN, _KEY_MAX = 24, 64
_CONNECT, _READ, _WHOLE = 5.0, 15.0, 30.0
_OK, _REDIRECTED, _REFUSED, _FAILED = 200, 300, 400, 500
_LATER = frozenset((408, 425, 429))


def read_secret(path: str) -> bytes:
    """The secret in this file, which is made if it is not there. Raises StoreUnavailable, InvalidRequest."""
    try:
        if not os.path.lexists(path):
            _make_secret(path)
        with open(path, encoding="ascii", errors="replace") as file:
            return decoded(file.read(1024).strip())
    except OSError as error:
        raise StoreUnavailable(f"The secret of web requests cannot be kept in {path}: {error.strerror}.") from error


def _make_secret(path: str) -> None:
    """Whole, or not at all."""
    unfinished = f"{path}.new"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as file:
        file.write(PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode() + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, path)


def decoded(secret: str) -> bytes:
    """The key that a secret stands for. Raises InvalidRequest."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not _KEY_MIN <= len(key) <= _KEY_MAX:
        raise InvalidRequest(f"The secret of web requests has to be {PREFIX} and Base64 of 24 to 64 bytes.")
    return key


def signature(key: bytes, identity: str, moment: int, body: bytes) -> str:
    """What stands in `webhook-signature`; `moment` in seconds since the epoch."""
    signed = f"{identity}.{moment}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class WebRequests:
    """Posts what it is given."""

    def __init__(self, key: bytes, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._pool: Any = None

    async def send(self, parcel: ToWeb) -> None:
        """Raises TargetDown or TargetRefused."""
        try:
            async with asyncio.timeout(_WHOLE):
                await aside(partial(self._post, parcel))
        except TimeoutError as error:
            raise TargetDown(f"{parcel.url} did not answer within {_WHOLE:g} s.") from error

    def _post(self, parcel: ToWeb) -> None:
        # Imported only when needed: most servers send nothing anywhere.
        import urllib3

        if self._pool is None:
            self._pool = urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=_CONNECT, read=_READ), retries=False, maxsize=8, block=False
            )
        moment = int(self._clock.wall())
        headers = {
            "Content-Type": parcel.content_type,
            "User-Agent": "Torpor",
            "webhook-id": parcel.identity,
            "webhook-timestamp": str(moment),
            "webhook-signature": signature(self._key, parcel.identity, moment, parcel.body),
        }
        try:
            answer = self._pool.request(
                "POST", parcel.url, body=parcel.body, headers=headers, redirect=False, preload_content=False
            )
            status, text = answer.status, answer.read(200)
            answer.close()
        except (urllib3.exceptions.LocationParseError, urllib3.exceptions.LocationValueError) as error:
            raise TargetRefused(f"{parcel.url} is no address.") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TargetDown(f"{parcel.url} cannot be reached: {error}"[:500]) from error
        _check(parcel.url, status, text)


def _check(url: str, status: int, text: bytes) -> None:
    if _OK <= status < _REDIRECTED:
        return
    told = f"{url} answered {status}: {text.decode(errors='replace')}".rstrip(": ")
    if status >= _FAILED or status in _LATER:
        raise TargetDown(told)
    raise TargetRefused(told)
