"""The configuration of a function URL: what is kept, how it is shown, and what refuses a call about it (9.6, 9.10)."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from torpor.contracts.lambda_.failures_api import ApiFailure
from torpor.contracts.lambda_.names import FunctionName
from torpor.contracts.lambda_.rendering import date_text
from torpor.contracts.lambda_.url_cors import Cors, read_cors

NONE = "NONE"
AWS_IAM = "AWS_IAM"
BUFFERED = "BUFFERED"
RESPONSE_STREAM = "RESPONSE_STREAM"
ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
ID_LENGTH = 32
_QUALIFIER = r"((?!^\d+$)^[0-9a-zA-Z-_]+$)"


class UrlConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One URL: of a function as it is, or of one of its aliases."""

    identity: str
    auth: str
    mode: str
    cors: Cors | None = None
    created: float
    """Seconds since the epoch, as `modified`."""
    modified: float

    def document(self) -> dict[str, Any]:
        """As it is kept."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document

    def shown(self, arn: str, url: str) -> dict[str, Any]:
        """As replies have it."""
        shown = {
            "FunctionUrl": url,
            "FunctionArn": arn,
            "AuthType": self.auth,
            "CreationTime": date_text(self.created),
            "LastModifiedTime": date_text(self.modified),
            "InvokeMode": self.mode,
        }
        return shown if self.cors is None else shown | {"Cors": msgspec.to_builtins(self.cors)}


def read_config(document: Mapping[str, Any]) -> UrlConfig:
    """What was kept."""
    return msgspec.convert(document, UrlConfig)


def new_config(values: Mapping[str, Any], identity: str, now: float) -> UrlConfig:
    """What a call of CreateFunctionUrlConfig asks for."""
    return UrlConfig(
        identity=identity,
        auth=values["AuthType"],
        mode=values.get("InvokeMode", BUFFERED),
        cors=read_cors(values.get("Cors")),
        created=now,
        modified=now,
    )


def changed_config(config: UrlConfig, values: Mapping[str, Any], now: float) -> UrlConfig:
    """The configuration as UpdateFunctionUrlConfig wants it: what is not given stays, Cors is replaced wholly."""
    return UrlConfig(
        identity=config.identity,
        auth=values.get("AuthType", config.auth),
        mode=values.get("InvokeMode", config.mode),
        cors=read_cors(values["Cors"]) if "Cors" in values else config.cors,
        created=config.created,
        modified=now,
    )


def check_qualifier(named: FunctionName) -> None:
    """URLs are of functions and of aliases, never of versions. Raises ApiFailure."""
    if named.qualifier and re.fullmatch(_QUALIFIER, named.qualifier, re.ASCII) is None:
        raise ApiFailure(
            "ValidationException",
            f"1 validation error detected: Value '{named.qualifier}' at 'qualifier' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {_QUALIFIER}",
        )


def no_function() -> ApiFailure:
    """Nothing to make a URL for."""
    return ApiFailure("ResourceNotFoundException", "Function does not exist")


def no_url() -> ApiFailure:
    """There is no such URL."""
    return ApiFailure("ResourceNotFoundException", "The resource you requested does not exist.")


def url_exists(arn: str) -> ApiFailure:
    """A function or alias has one URL at most."""
    return ApiFailure(
        "ResourceConflictException",
        f"Failed to create function url config for [functionArn = {arn}]. "
        "Error message:  FunctionUrlConfig exists for this Lambda function",
    )
