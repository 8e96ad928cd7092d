"""The kinds of settings that belong to a function, or to one of its versions or aliases, and are deleted with it."""

POLICY = "policy"
URL = "function url"
CODE_SIGNING = "code signing"
EVENT_SETTINGS = "event settings"
RUNTIME_UPDATES = "runtime updates"
RECURSION = "recursion"

KINDS = (POLICY, URL, CODE_SIGNING, EVENT_SETTINGS, RUNTIME_UPDATES, RECURSION)
"""All of them: one that is missing here would outlive its function."""
