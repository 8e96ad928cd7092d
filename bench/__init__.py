"""Measurements, beside the cloud's own emulator on the same machine: `make bench`."""
