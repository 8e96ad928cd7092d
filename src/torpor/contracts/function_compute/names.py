"""Names of services, functions, layers and instances: how they may be written, kept and shown (1.3, 4)."""

import os
import re
from dataclasses import dataclass
from enum import StrEnum

from torpor.contracts.function_compute import limits
from torpor.contracts.function_compute.api_failures import invalid
from torpor.model.function import LATEST as NEWEST
from torpor.model.function import FunctionVersion

SPACE = "fc"
"""Where the platform keeps the functions of this contract."""
LATEST = "LATEST"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ALIAS = re.compile(r"(?!LATEST$)[A-Za-z_][A-Za-z0-9_-]*")
_ARN = re.compile(r"acs:fc:(?P<region>[^:]*):(?P<account>[^:]*):(?P<rest>.+)")
_LAYER = re.compile(r"layers/(?P<name>[A-Za-z_][A-Za-z0-9_-]*)/versions/(?P<number>[1-9][0-9]{0,8})")


class Generation(StrEnum):
    """The API's versions, by the first part of their paths."""

    CLASSIC = "2016-08-15"
    OPEN = "2021-04-06"
    V3 = "2023-03-30"

    @property
    def has_services(self) -> bool:
        return self is not Generation.V3


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The account and region that names belong to."""

    account: str
    region: str

    def function_arn(self, function: str, service: str = "") -> str:
        rest = f"services/{service}/functions/{function}" if service else f"functions/{function}"
        return f"{self._prefix}:{rest}"

    def layer_arn(self, layer: str, number: int) -> str:
        return f"{self._prefix}:layers/{layer}/versions/{number}"

    @property
    def _prefix(self) -> str:
        return f"acs:fc:{self.region}:{self.account}"


def record_name(function: str, service: str = "") -> str:
    """The name under which the platform keeps a function."""
    return f"{SPACE}/{service}/{function}" if service else f"{SPACE}/{function}"


def function_of(record: str) -> str:
    """The function's own name out of its record's."""
    return record.rpartition("/")[2]


def service_of(record: str) -> str:
    """The service's name out of its function's record; empty for functions of the third generation."""
    parts = record.split("/")
    return parts[1] if len(parts) == len((SPACE, "service", "function")) else ""


def is_classic(version: FunctionVersion) -> bool:
    """Was it made by a generation of the API that has services?"""
    return bool(service_of(version.function))


def shown_version(number: str) -> str:
    """A version's number as servers and callers see it; empty for the newest one."""
    return "" if number == NEWEST else number


def check_name(name: object, what: str, *, longest: int = limits.NAME_MAX) -> str:
    """The name, if it is one. Raises ApiFailure."""
    if not isinstance(name, str) or not name:
        raise invalid(f"{what} is required and must be a text")
    if len(name) > longest or _NAME.fullmatch(name) is None:
        allowed = f"at most {longest} letters, digits, '_' or '-', the first neither a digit nor '-'"
        raise invalid(f"{what} '{name}' is not valid: {allowed}")
    return name


def check_alias(name: object) -> str:
    """An alias's name. Raises ApiFailure."""
    text = check_name(name, "aliasName", longest=limits.TRIGGER_NAME_MAX)
    if _ALIAS.fullmatch(text) is None:
        raise invalid(f"aliasName '{text}' is reserved")
    return text


def layer_of(arn: str) -> tuple[str, int]:
    """Name and number of the layer version that an ARN names. Raises ApiFailure."""
    found = _ARN.fullmatch(arn)
    layer = _LAYER.fullmatch(found["rest"]) if found is not None else None
    if layer is None:
        raise invalid(f"layer '{arn}' is not of the form acs:fc:region:account:layers/name/versions/number")
    return layer["name"], int(layer["number"])


def resource_of(arn: str) -> tuple[str, str]:
    """Service and function that a tagging call's ARN names, each empty if it is not named. Raises ApiFailure."""
    found = _ARN.fullmatch(arn)
    parts = (found["rest"] if found is not None else arn).split("/")
    match parts:
        case ["functions", function]:
            return "", function
        case ["services", service]:
            return service, ""
        case ["services", service, "functions", function]:
            return service, function
    raise invalid(f"resource '{arn}' is not the ARN of a service or function")


def new_request_id(now: float) -> str:
    """A call's id: `1-`, the seconds since the epoch, and noise (1.3)."""
    noise = os.urandom(10).hex()
    return f"1-{int(now):08x}-{noise[:8]}-{noise[8:]}"


def instance_id(environment: str, *, classic: bool) -> str:
    """The instance's name out of the environment's: the same inside, in logs and in answers."""
    digits = environment.replace("-", "")
    if classic:
        return f"c-{digits[:8]}-{digits[8:28]}"
    return f"c-{digits[:8]}-{digits[8:16]}-{digits[16:28]}"
