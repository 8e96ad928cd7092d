"""Faces: each contract's routes, and the server's own."""
