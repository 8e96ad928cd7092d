"""Numbers that several APIs of one vendor share. Times in seconds."""

# Signatures (9.2)
CLOCK_SKEW = 300.0
PRESIGNED_MAX = 604_800.0
