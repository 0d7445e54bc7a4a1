"""The API Scheduler service: calls one API at the times asked for, and accounts for every call.

Read in the order in which a call meets the code: views (asked for), transitions (every change of
its status), tasks (handed over, made), caller (the HTTP request), call_log (its line in the log).
"""
from .celery import app as celery_app

__all__ = ["celery_app"]
