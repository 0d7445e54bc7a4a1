"""The obvious design, for comparison only: `apply_async(eta=...)` for each timestamp at request time,
a result backend in the database."""
from .celery import app

__all__ = ["app"]
