"""The kinds of settings that belong to a function, or to one of its versions or aliases, and are deleted with it."""

from torpor.contracts.lambda_.names import FunctionName
from torpor.model.function import LATEST

POLICY = "policy"
URL = "function url"
CODE_SIGNING = "code signing"
EVENT_SETTINGS = "event settings"
RUNTIME_UPDATES = "runtime updates"
RECURSION = "recursion"

KINDS = (POLICY, URL, CODE_SIGNING, EVENT_SETTINGS, RUNTIME_UPDATES, RECURSION)
"""All of them: one that is missing here would outlive its function."""


def plain(named: FunctionName) -> FunctionName:
    """The newest version's settings are kept by the function's bare name, however it is called."""
    return FunctionName(name=named.name) if named.qualifier == LATEST else named
