"""Torpor: serverless functions in real sandboxes with the faithful execution-environment life cycle."""

from importlib.util import find_spec

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Whether what every invocation passes through is compiled; nothing else differs."""
    spec = find_spec("torpor.lifecycle.machine")
    return spec is not None and not str(spec.origin).endswith(".py")
