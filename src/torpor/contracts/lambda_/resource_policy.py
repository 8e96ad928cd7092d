"""Resource policies: who else may use a function or a layer version, as the API takes and shows it (9.4, 9.6, 9.7).

What is kept is a document with the statements as they are shown, and a revision.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from torpor.contracts.arns import partition_of
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter
from torpor.contracts.lambda_.names import Place

INVOKE_URL = "lambda:InvokeFunctionUrl"
AUTH_TYPE = "lambda:FunctionUrlAuthType"
VIA_URL = "lambda:InvokedViaFunctionUrl"
NO_POLICY = "No policy is associated with the given resource."
NOT_ON_LATEST = "We currently do not support adding policies for $LATEST."

_SERVICE = re.compile(r"[a-z0-9.-]+\.amazon(?:aws)?\.com(?:\.cn)?")
_ACCOUNT = re.compile(r"[0-9]{12}")
_IDENTITY = re.compile(r"arn:aws[a-zA-Z-]*:(?:iam|sts)::[0-9]{12}:[^\s]+")


def function_statement(values: Mapping[str, Any], resource: str, place: Place) -> dict[str, Any]:
    """The statement of an AddPermission call; `resource` is the ARN with its qualifier. Raises ApiFailure."""
    if "FunctionUrlAuthType" in values and values["Action"] != INVOKE_URL:
        raise invalid_parameter(f"FunctionUrlAuthType is only supported for {INVOKE_URL} action")
    return _statement(values, resource, place, _conditions(values))


def layer_statement(values: Mapping[str, Any], resource: str, place: Place) -> dict[str, Any]:
    """The statement that an AddLayerVersionPermission call asks for. Raises ApiFailure."""
    organization = values.get("OrganizationId")
    equal = {"aws:PrincipalOrgID": organization} if organization else {}
    return _statement(values, resource, place, {"StringEquals": equal})


def with_statement(kept: Mapping[str, Any] | None, statement: Mapping[str, Any], revision: str) -> dict[str, Any]:
    """The document with one statement more. Raises ApiFailure for a taken id, or when it would be too long."""
    statements = list(kept["Statement"]) if kept else []
    if any(each["Sid"] == statement["Sid"] for each in statements):
        message = (
            f"The statement id ({statement['Sid']}) provided already exists. Please provide a new statement id, "
            "or remove the existing statement."
        )
        raise ApiFailure("ResourceConflictException", message)
    document = {"RevisionId": revision, "Statement": [*statements, statement]}
    size = len(text(document).encode())
    if size > limits.POLICY_MAX:
        message = f"The final policy size ({size}) is bigger than the limit ({limits.POLICY_MAX})."
        raise ApiFailure("PolicyLengthExceededException", message)
    return document


def without_statement(kept: Mapping[str, Any], identity: str, revision: str) -> dict[str, Any] | None:
    """The document without one statement; None if it was the last. Raises ApiFailure if there is none of that id."""
    left = [statement for statement in kept["Statement"] if statement["Sid"] != identity]
    if len(left) == len(kept["Statement"]):
        raise ApiFailure("ResourceNotFoundException", f"Statement {identity} is not found in resource policy.")
    return {"RevisionId": revision, "Statement": left} if left else None


def text(document: Mapping[str, Any]) -> str:
    """The policy as a caller reads it."""
    return json_text({"Version": "2012-10-17", "Id": "default", "Statement": document["Statement"]})


def json_text(value: Mapping[str, Any]) -> str:
    """JSON as replies carry it inside a text."""
    return json.dumps(value, separators=(",", ":"))


def absent() -> ApiFailure:
    """No policy was ever set, or its last statement has gone."""
    return ApiFailure("ResourceNotFoundException", NO_POLICY)


def check_revision(expected: str | None, present: str, reader: str) -> None:
    """Refuse a revision that is not the present one; `reader` is the call that tells it. Raises ApiFailure."""
    if expected is not None and expected != present:
        raise ApiFailure(
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. "
            f"Call the {reader} API to retrieve the latest Revision Id",
        )


def _statement(
    values: Mapping[str, Any], resource: str, place: Place, conditions: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    statement = {
        "Sid": values["StatementId"],
        "Effect": "Allow",
        "Principal": _principal(values["Principal"], place),
        "Action": values["Action"],
        "Resource": resource,
    }
    wanted = {operator: dict(keys) for operator, keys in conditions.items() if keys}
    return statement | {"Condition": wanted} if wanted else statement


def _principal(given: str, place: Place) -> Any:
    if given == "*":
        return given
    if _SERVICE.fullmatch(given):
        return {"Service": given}
    if _ACCOUNT.fullmatch(given):
        return {"AWS": f"arn:{partition_of(place.region)}:iam::{given}:root"}
    if _IDENTITY.fullmatch(given):
        return {"AWS": given}
    raise invalid_parameter("The provided principal was invalid. Please check the principal and try again.")


def _conditions(values: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    keys = {
        AUTH_TYPE: "FunctionUrlAuthType",
        "aws:PrincipalOrgID": "PrincipalOrgID",
        "AWS:SourceAccount": "SourceAccount",
        "lambda:EventSourceToken": "EventSourceToken",
    }
    via_url, source = values.get("InvokedViaFunctionUrl"), values.get("SourceArn")
    return {
        "StringEquals": {key: values[field] for key, field in keys.items() if values.get(field)},
        "Bool": {} if via_url is None else {VIA_URL: str(via_url).lower()},
        "ArnLike": {"AWS:SourceArn": source} if source else {},
    }
