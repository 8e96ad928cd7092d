"""What users ask of the platform, in its own words: no HTTP and no cloud's vocabulary."""
