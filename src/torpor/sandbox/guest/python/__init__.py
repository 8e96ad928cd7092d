"""Runs inside: how a Python function is started and cloned. Imports nothing of the server."""
