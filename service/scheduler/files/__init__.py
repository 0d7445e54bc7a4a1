"""Targets and schedules as a file, which can be kept with the code that they belong to."""
