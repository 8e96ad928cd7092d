"""Alibaba Cloud Function Compute: what servers inside are sent, what callers are told. Section numbers in this folder
are those of the contract page."""
