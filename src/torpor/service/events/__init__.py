"""Asynchronous events: accepted once they are on the disk, run until they are through, their results handed on."""
