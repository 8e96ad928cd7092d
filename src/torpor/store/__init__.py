"""What outlives the server: metadata, code, and later the event queue. Ports and adapters."""
