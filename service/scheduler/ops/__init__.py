"""For the operator: whether the service is well, its numbers, being told, deleting what is old."""
