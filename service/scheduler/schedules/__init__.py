"""When: what a schedule asks for, and how that becomes calls."""
