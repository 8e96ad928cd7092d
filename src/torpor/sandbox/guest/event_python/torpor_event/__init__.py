"""Runs inside: the server around an event function's handler. Imports nothing of the platform."""
