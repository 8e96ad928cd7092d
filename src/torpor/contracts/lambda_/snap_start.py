"""Versions whose environments go on from a snapshot (contract 1.5, 2.8): who may have them, and what they are given."""

import hashlib
import hmac
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.environment import Credentials
from torpor.contracts.lambda_.failures_api import invalid_parameter
from torpor.contracts.lambda_.runtime_api import CREDENTIALS_PATH
from torpor.model.function import FunctionVersion

CONFIG = "SnapStart"
ON, OFF = "PublishedVersions", "None"
_OLDEST = {"python": (3, 12), "java": (11,), "dotnet": (8,)}
"""The first version of each language that can be saved."""
_RUNTIME = re.compile(r"([a-z]+)([0-9.]+)")
_UNKNOWN = b"cannot get credentials for the provided token"


def wanted(values: Mapping[str, Any]) -> bool:
    """Does a call ask for snapshots?"""
    return bool(values.get(CONFIG, {}).get("ApplyOn", OFF) == ON)


def check(runtime: str, tmp_mb: int, *, managed: bool) -> None:
    """Refuse snapshots of what cannot have them. Raises ApiFailure."""
    found = _RUNTIME.match(runtime)
    oldest = _OLDEST.get(found[1]) if found else None
    if found is None or oldest is None or tuple(int(part) for part in found[2].split(".") if part) < oldest:
        raise invalid_parameter(f"{runtime} is not supported for SnapStart enabled functions.")
    if tmp_mb > limits.TMP_DEFAULT_MB:
        raise invalid_parameter(
            f"SnapStart supports at most {limits.TMP_DEFAULT_MB} MB of ephemeral storage; this function has {tmp_mb}."
        )
    if managed:
        raise invalid_parameter("SnapStart is not supported for functions on a capacity provider.")


def shown(version: FunctionVersion) -> dict[str, str]:
    """The setting as the API shows it."""
    return {"ApplyOn": ON if version.snapshots else OFF, "OptimizationStatus": "On" if version.is_restored else "Off"}


def token_of(key: bytes, version: FunctionVersion) -> str:
    """What the environments of a version show for their credentials: in their snapshot it stays the same."""
    digest = hmac.digest(key, "\0".join(version.key[:3]).encode(), hashlib.sha256)
    return str(uuid.UUID(bytes=digest[:16], version=4))


def variables(api_address: str, token: str) -> dict[str, str]:
    """In place of credentials, where to get them (6)."""
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{api_address}{CREDENTIALS_PATH}",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": token,
    }


def credentials_answer(
    credentials: Credentials, token: str, given: str, environment: str, wall: float
) -> tuple[int, tuple[str, str], bytes]:
    """Status, content type field and body of the answer to whoever shows the token `given` (2.8).

    Each environment has a session of its own, and each answer is good for some hours from `wall` on."""
    if not hmac.compare_digest(given.encode(), token.encode()):
        return 404, ("Content-Type", "text/plain"), _UNKNOWN
    session = hashlib.sha256(f"{credentials.session_token}{environment}".encode()).hexdigest()
    expires = datetime.fromtimestamp(wall + limits.CREDENTIALS_LIFETIME, UTC)
    body = {
        "AccessKeyId": credentials.access_key,
        "SecretAccessKey": credentials.secret_key,
        "Token": session,
        "Expiration": expires.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    return 200, ("Content-Type", "application/json"), msgspec.json.encode(body)
