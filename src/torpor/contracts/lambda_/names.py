"""Names of functions and other resources: how callers may write them, and how they are shown (9.4)."""

import re
from dataclasses import dataclass

import msgspec

from torpor.contracts.arns import partition_of
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.failures_api import ApiFailure, function_not_found, invalid_parameter

_FORMS = re.compile(
    r"(?:arn:(?P<partition>aws[a-zA-Z-]*)?:lambda:)?"
    r"(?:(?P<region>(?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-[0-9]):)?"
    r"(?:(?P<account>[0-9]{12}):)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9_.-]+)(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9_-]+))?"
)
_TAGGABLE = re.compile(r"arn:(?:aws[a-zA-Z-]*):lambda:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):(?P<rest>.+)")
MISMATCH = "The derived qualifier from the function name does not match the specified qualifier."
UNQUALIFIED_ONLY = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
    "Please specify either a function name or an unqualified function ARN."
)
TAGS_ON_FUNCTIONS_ONLY = "Tags on function aliases and versions are not supported. Please specify a function ARN."


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a call arrives: the account and region its names belong to."""

    account: str
    region: str

    def function_arn(self, name: str, qualifier: str = "") -> str:
        """The function's full name, with the qualifier if there is one."""
        arn = f"arn:{partition_of(self.region)}:lambda:{self.region}:{self.account}:function:{name}"
        return f"{arn}:{qualifier}" if qualifier else arn


class FunctionName(msgspec.Struct, frozen=True, kw_only=True):
    """A function as a caller named it; `qualifier` is empty if none was given."""

    name: str
    qualifier: str = ""


def function_name(text: str, qualifier: str, place: Place) -> FunctionName:
    """Read a bare name, partial ARN or full ARN, each with or without qualifier.

    Raises ApiFailure when the two qualifiers differ, the name is too long, or the ARN is of another region or account.
    """
    found = _FORMS.fullmatch(text)
    if found is None:
        raise invalid_parameter(f"Invalid function name: {text}")
    _check_place(found["region"], found["account"], text, place)
    _check_length(found["name"])
    derived = found["qualifier"] or ""
    if derived and qualifier and derived != qualifier:
        raise invalid_parameter(MISMATCH)
    return FunctionName(name=found["name"], qualifier=qualifier or derived)


def taggable_function(arn: str, place: Place) -> str:
    """The bare name of the function that a tagging call's ARN names. Raises ApiFailure for anything else."""
    found = _TAGGABLE.fullmatch(arn)
    if found is None or not found["rest"].startswith("function:"):
        raise ApiFailure("ResourceNotFoundException", "The resource you requested does not exist.")
    named = function_name(arn, "", place)
    if named.qualifier:
        raise invalid_parameter(TAGS_ON_FUNCTIONS_ONLY)
    return named.name


def require_unqualified(named: FunctionName) -> None:
    """Refuse a qualifier where the operation is about the whole function."""
    if named.qualifier:
        raise invalid_parameter(UNQUALIFIED_ONLY)


def _check_place(region: str | None, account: str | None, text: str, place: Place) -> None:
    if region is not None and region != place.region:
        message = f"Functions from '{region}' are not reachable in this region ('{place.region}')"
        raise ApiFailure("ResourceNotFoundException", message)
    if account is not None and account != place.account:
        raise function_not_found(text)


def _check_length(name: str) -> None:
    if len(name) > limits.NAME_MAX:
        raise invalid_parameter(
            f"1 validation error detected: Value '{name}' at 'functionName' failed to satisfy constraint: "
            f"Member must have length less than or equal to {limits.NAME_MAX}"
        )
