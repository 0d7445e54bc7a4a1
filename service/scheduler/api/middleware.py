"""What every request passes first."""
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db import connection

from ..base import outage
from ..base.database import within
from .errors import away, no_answer, not_found, of_api, outside, unavailable


def own_host(get_response):
    """Refuses a request for a Host that is not in ALLOWED_HOSTS with a 400 of a line. Django's own page
    would show the settings to it while DEBUG is on: any web page can have its name point here."""
    def middleware(request):
        try:
            request.get_host()
        except DisallowedHost:
            return outside(request, 400, "This service does not answer for that Host: see ALLOWED_HOSTS.")
        return get_response(request)
    return middleware


def own_404(get_response):
    """While DEBUG is on, Django answers people who mistype an address with a list of all patterns."""
    def middleware(request):
        response = get_response(request)
        return not_found(request) if response.status_code == 404 and settings.DEBUG and not of_api(request) else response
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


class DatabaseAway:
    """Answers for people's pages when the database is away, and notices that it is back."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        if connection.connection is not None:       # it was asked, and not without an answer
            outage.database_answered()
        return response

    def process_exception(self, request, error):
        if no_answer(error):
            away(error)
            return unavailable(request, error)
