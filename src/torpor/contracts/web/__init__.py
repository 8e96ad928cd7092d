"""Web services: any HTTP server that a start command runs, as its callers and its code know it."""
