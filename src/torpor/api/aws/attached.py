"""The kinds of settings that belong to a function, or to one of its versions or aliases, and are deleted with it."""

POLICY = "policy"
URL = "function url"

KINDS = (POLICY, URL)
"""All of them: one that is missing here would outlive its function."""
