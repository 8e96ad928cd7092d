"""Isolation: one port, several adapters, and the files that run inside."""
