"""May this caller do that, by a resource policy? The cloud's rules for the statements it writes itself (9.7, 9.10).

An explicit Deny wins; without an Allow nothing is allowed.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

ANONYMOUS = ""
"""A caller who has not said who they are."""
_ARN_PARTS = 6


def is_allowed(policy: Mapping[str, Any], action: str, principal: str, context: Mapping[str, str]) -> bool:
    """Does the policy allow the action, such as `lambda:InvokeFunction`, to the principal?

    `policy` is what is kept or shown of it: something with statements. `principal` is a service (`s3.amazonaws.com`),
    an account number, an ARN, or `ANONYMOUS`. `context` has the request's condition keys, in any case of letters.
    """
    facts = {key.lower(): value for key, value in context.items()}
    effects = {
        statement["Effect"]
        for statement in policy["Statement"]
        if _names_action(statement["Action"], action)
        and _names(statement["Principal"], principal)
        and _holds(statement.get("Condition", {}), facts, unknown=statement["Effect"] == "Deny")
    }
    return effects == {"Allow"}


def _names_action(given: Any, action: str) -> bool:
    return any(matches(each.lower(), action.lower()) for each in _each(given))


def _names(given: Any, principal: str) -> bool:
    if given == "*":
        return True
    if "Service" in given and principal in _each(given["Service"]):
        return True
    return any(_is_identity(each, principal) for each in _each(given.get("AWS", ())))


def _is_identity(named: str, principal: str) -> bool:
    """Is it the principal, or the account that the principal belongs to?"""
    if named in ("*", principal):
        return True
    account = _account(named) if named.endswith(":root") else named
    return account.isdecimal() and account == _account(principal)


def _account(principal: str) -> str:
    parts = principal.split(":")
    return parts[4] if len(parts) >= _ARN_PARTS else principal


def _holds(conditions: Mapping[str, Mapping[str, Any]], facts: Mapping[str, str], *, unknown: bool) -> bool:
    """Do all conditions hold? A kind of condition that nobody knows counts as `unknown` says."""
    for operator, keys in conditions.items():
        test = _OPERATORS.get(operator)
        if test is None:
            if not unknown:
                return False
            continue
        for key, wanted in keys.items():
            present = facts.get(key.lower())
            if present is None or not any(test(str(each), present) for each in _each(wanted)):
                return False
    return True


def _each(value: Any) -> Iterable[str]:
    return (value,) if isinstance(value, str) else value


def _equal(wanted: str, present: str) -> bool:
    return wanted == present


def _same_truth(wanted: str, present: str) -> bool:
    return wanted.lower() == present.lower()


def _arn_like(wanted: str, present: str) -> bool:
    patterns, parts = wanted.split(":", _ARN_PARTS - 1), present.split(":", _ARN_PARTS - 1)
    if not len(patterns) == len(parts) == _ARN_PARTS:
        return False
    return all(matches(pattern, part) for pattern, part in zip(patterns, parts, strict=True))


def matches(pattern: str, text: str) -> bool:
    """Does a pattern with `*` (any text) and `?` (any character) fit the whole text? It takes the product of
    both lengths at most, whatever the pattern."""
    at = place = 0
    star, resume = -1, 0
    while at < len(text):
        if place < len(pattern) and pattern[place] == "*":
            star, resume = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in ("?", text[at]):
            place, at = place + 1, at + 1
        elif star >= 0:
            resume += 1
            place, at = star + 1, resume
        else:
            return False
    return all(left == "*" for left in pattern[place:])


_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": _equal,
    "StringLike": matches,
    "Bool": _same_truth,
    "ArnLike": _arn_like,
    "ArnEquals": _arn_like,
}
