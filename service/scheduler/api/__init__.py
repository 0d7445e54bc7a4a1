"""For programs: the HTTP API."""
