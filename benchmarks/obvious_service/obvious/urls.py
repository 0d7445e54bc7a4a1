"""POST /api/schedule-api/: a row and a task for each timestamp."""
from datetime import datetime

from django.http import HttpResponse
from django.urls import path
from rest_framework.decorators import api_view
from rest_framework.response import Response

from .celery import call_api
from .models import Call


@api_view(["POST"])
def schedule(request):
    created = []
    for text in request.data["timestamps"].split(","):
        call = Call.objects.create(timestamp=datetime.fromisoformat(text.strip()))
        call_api.apply_async((call.id,), eta=call.timestamp)
        created.append({"id": call.id, "timestamp": call.timestamp, "status": call.status})
    return Response(created, 201)


urlpatterns = [path("", lambda request: HttpResponse("up")), path("api/schedule-api/", schedule)]
