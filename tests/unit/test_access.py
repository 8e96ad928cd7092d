"""What a resource policy allows, and to whom."""

import time
from typing import Any

import pytest

from torpor.contracts.lambda_.access import ANONYMOUS, is_allowed, matches
from torpor.contracts.lambda_.names import Place
from torpor.contracts.lambda_.resource_policy import function_statement

INVOKE, URL = "lambda:InvokeFunction", "lambda:InvokeFunctionUrl"
HERE = Place(account="000000000000", region="us-east-1")
USER = "arn:aws:iam::111122223333:user/app"


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Statement": list(statements)}


def added(**values: Any) -> dict[str, Any]:
    """A statement as AddPermission makes it."""
    given = {"StatementId": "s", "Action": INVOKE, "Principal": "*", **values}
    return function_statement(given, "arn:aws:lambda:us-east-1:000000000000:function:f", HERE)


def test_nothing_is_allowed_without_a_statement() -> None:
    assert not is_allowed(policy(), INVOKE, USER, {})


@pytest.mark.parametrize(
    ("named", "principal", "allowed"),
    [
        ("*", ANONYMOUS, True),
        ("*", USER, True),
        ("s3.amazonaws.com", "s3.amazonaws.com", True),
        ("s3.amazonaws.com", "sns.amazonaws.com", False),
        ("s3.amazonaws.com", ANONYMOUS, False),
        ("111122223333", USER, True),
        ("111122223333", "111122223333", True),
        ("111122223333", "arn:aws:iam::444455556666:user/app", False),
        ("111122223333", ANONYMOUS, False),
        (USER, USER, True),
        (USER, "arn:aws:iam::111122223333:user/other", False),
        (USER, "111122223333", False),
    ],
)
def test_principal_is_everyone_a_service_an_account_or_one_identity(named: str, principal: str, allowed: bool) -> None:
    assert is_allowed(policy(added(Principal=named)), INVOKE, principal, {}) is allowed


@pytest.mark.parametrize(
    ("named", "allowed"), [(INVOKE, True), ("lambda:*", True), ("*", True), (URL, False), ("lambda:GetFunction", False)]
)
def test_action_is_named_or_any(named: str, allowed: bool) -> None:
    assert is_allowed(policy(added(Action=named)), INVOKE, USER, {}) is allowed


def test_url_without_authentication_needs_its_own_statement() -> None:
    open_url = policy(added(Action=URL, FunctionUrlAuthType="NONE"))
    context = {"lambda:FunctionUrlAuthType": "NONE"}
    assert is_allowed(open_url, URL, ANONYMOUS, context)
    assert not is_allowed(open_url, URL, ANONYMOUS, {"lambda:FunctionUrlAuthType": "AWS_IAM"})
    assert not is_allowed(open_url, URL, ANONYMOUS, {})
    assert not is_allowed(open_url, INVOKE, ANONYMOUS, context)
    via_url = policy(added(InvokedViaFunctionUrl=True))
    assert is_allowed(via_url, INVOKE, ANONYMOUS, {"lambda:InvokedViaFunctionUrl": "true"})
    assert not is_allowed(via_url, INVOKE, ANONYMOUS, {})


def test_every_condition_has_to_hold() -> None:
    both = policy(added(SourceArn="arn:aws:s3:::up*", SourceAccount="111122223333"))
    source, account = {"aws:SourceArn": "arn:aws:s3:::uploads"}, {"aws:SourceAccount": "111122223333"}
    assert is_allowed(both, INVOKE, ANONYMOUS, source | account)
    assert not is_allowed(both, INVOKE, ANONYMOUS, source)
    assert not is_allowed(both, INVOKE, ANONYMOUS, account)
    assert not is_allowed(both, INVOKE, ANONYMOUS, account | {"aws:SourceArn": "arn:aws:s3:::downloads"})


def test_star_of_an_arn_stays_within_its_part() -> None:
    one = policy(added(SourceArn="arn:aws:sns:us-east-1:111122223333:*"))
    assert is_allowed(one, INVOKE, ANONYMOUS, {"aws:SourceArn": "arn:aws:sns:us-east-1:111122223333:a:b"})
    several = policy({**added(), "Condition": {"ArnLike": {"AWS:SourceArn": "arn:aws:sns:*:topic"}}})
    assert not is_allowed(several, INVOKE, ANONYMOUS, {"aws:SourceArn": "arn:aws:sns:us-east-1:111122223333:topic"})


def test_denial_wins() -> None:
    denied = {**added(Principal="111122223333"), "Effect": "Deny"}
    assert is_allowed(policy(added()), INVOKE, USER, {})
    assert not is_allowed(policy(added(), denied), INVOKE, USER, {})
    assert is_allowed(policy(added(), denied), INVOKE, ANONYMOUS, {})


def test_condition_that_nobody_knows_never_allows() -> None:
    strange = {"Condition": {"DateLessThan": {"aws:CurrentTime": "2100-01-01"}}}
    assert not is_allowed(policy({**added(), **strange}), INVOKE, USER, {"aws:CurrentTime": "2000-01-01"})
    assert not is_allowed(policy(added(), {**added(), **strange, "Effect": "Deny"}), INVOKE, USER, {})


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("", "", True),
        ("*", "", True),
        ("a*c", "abc", True),
        ("a*c", "abcd", False),
        ("?", "", False),
        ("a?", "a*", True),
        ("*a*", "bab", True),
        ("**b", "aab", True),
        ("a", "*", False),
    ],
)
def test_patterns_fit_whole_texts(pattern: str, text: str, fits: bool) -> None:
    assert matches(pattern, text) is fits


def test_hostile_pattern_takes_no_time() -> None:
    begun = time.monotonic()
    assert not matches("a*" * 500 + "b", "a" * 2_000)
    assert time.monotonic() - begun < 5.0
