"""What every request passes first."""
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpResponse, JsonResponse

from ..base.database import within


def own_host(get_response):
    """Refuses a request for a Host that is not in ALLOWED_HOSTS with a plain 400. Django's own page
    would show the settings to it while DEBUG is on: any web page can have its name point here.
    /healthz answers all the same, as load balancers ask by address, and says no more than the sum."""
    def middleware(request):
        try:
            request.get_host()
        except DisallowedHost:
            if request.path == "/healthz":
                from .calls import health       # which needs the apps to be there
                answer, code = health()
                return JsonResponse({"status": answer["status"]}, status=code)
            return HttpResponse("This service does not answer for that Host: see ALLOWED_HOSTS.\n",
                                "text/plain", 400)
        return get_response(request)
    return middleware


def in_time(get_response):
    """What programs ask for has one time limit for all that it needs from the database. People's
    pages have one for each statement: an action of the admin may be ten thousand of them."""
    def middleware(request):
        if request.path.startswith(("/api/", "/metrics")):
            with within(settings.DATABASE_TIMEOUT):
                return get_response(request)
        return get_response(request)
    return middleware
