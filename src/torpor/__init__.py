"""Torpor: serverless functions in real sandboxes with the faithful execution-environment life cycle."""

__version__ = "0.1.0"
