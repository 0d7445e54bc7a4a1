"""The Celery application: `celery -A scheduler worker` and `celery -A scheduler beat`.

Celery only carries. What is due, what is being called and how it ended is in the database alone,
so a lost, late or repeated message costs at most a few seconds: see transitions.py.
"""
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler.settings")

app = Celery("scheduler")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
