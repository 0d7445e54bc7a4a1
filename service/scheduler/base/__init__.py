"""What everything stands on; it knows of no call and no schedule."""
