"""Celery with Redis, an ETA for each call, and django-celery-results."""
import os

import requests
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "obvious.settings")
app = Celery("obvious", broker=os.environ["REDIS_URL"])
app.conf.result_backend = "django-db"
app.conf.task_default_queue = "obvious"


@app.task(name="obvious.call_api")
def call_api(call_id):
    from .models import Call
    try:
        response = requests.get(os.environ["API_URL"], timeout=30)
        status = "Succeeded" if response.ok else "Failed"
    except requests.RequestException:
        status = "Failed"
    Call.objects.filter(id=call_id).update(status=status)
    return status
