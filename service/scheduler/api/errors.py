"""What is said when something goes wrong: below /api/ always JSON, and always in one shape, `detail`
with a sentence and `errors` where there may be several."""
import re
import sys

import psycopg
from django.conf import settings
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import DataError, DatabaseError, IntegrityError, InterfaceError, ProgrammingError, connection
from django.http import HttpResponse, HttpResponseNotFound, JsonResponse
from django.template.loader import render_to_string
from django.utils.log import log_response
from django.views import defaults
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter
from rest_framework.exceptions import APIException, ParseError, UnsupportedMediaType, ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from ..base import outage
from ..base.database import reason
from ..base.words import hidden, printable

RETRY_AFTER = 5     # seconds
MIGRATE = "Migrate it: python3 manage.py migrate"
NOT_MIGRATED = f"The database lacks what this version needs. {MIGRATE}"
BROKEN = "Something is broken here, and it is not your request. The output of the web server says what."


class Refusal(ValidationError):
    """A 400 with a `detail`, and perhaps `errors`, one for each thing that is wrong."""

    def __init__(self, detail, errors=None):
        super().__init__(detail)
        self.detail = {"detail": detail, **({"errors": errors} if errors else {})}

    @classmethod
    def of(cls, problems):
        """One that names all of `problems`, {key of the request: a sentence}, in their order."""
        return cls(" ".join(f"{key}: {reason}" for key, reason in problems.items()),
                   [{"key": key, "reason": reason} for key, reason in problems.items()])


class Conflict(APIException):
    """A 409: what is asked for is not to be had as things are.

    status: of the call that is in the way, if one is
    """

    status_code = 409

    def __init__(self, detail, status=None):
        super().__init__(detail)
        self.detail = {"detail": detail, **({"status": str(status)} if status else {})}


class Unavailable(APIException):
    """A 503: later it may go well."""

    status_code = 503
    wait = RETRY_AFTER
    default_detail = ("The database does not answer. Try again in some seconds; with an Idempotency-Key, as "
                      "a POST may have been taken all the same, and with it is not taken twice.")


def no_answer(error):
    """Whether `error` comes from a database that is gone, frozen, locked or full, and not from what
    it was asked; or from one that was never migrated to this version."""
    return unmigrated(error) or isinstance(error, InterfaceError) or (
        isinstance(error, DatabaseError) and not isinstance(error, (DataError, IntegrityError, ProgrammingError)))


def unmigrated(error):
    """Whether `error` says that a table or a column is not there."""
    return isinstance(error, DatabaseError) and (
        re.match("no such (table|column)|table .* has no column", str(error))
        or isinstance(error.__cause__, (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)))


def away(error):
    """Ends the use of a database for which `no_answer`, and says so in the output, once."""
    connection.close()
    then = MIGRATE if unmigrated(error) else ""
    outage.database.began(printable(reason(error)), then)


def explain(error, context):
    """DRF's handling of errors, in one shape and for all errors there are.

    A body in another format is to its sender the same mistake as bad JSON, "not JSON", whether the
    header says so or the text. A body that is too large is refused by Django unread.
    """
    from rest_framework.views import exception_handler     # which imports this module

    request, cause = context["request"], error
    request.accepted_renderer, request.accepted_media_type = JSONRenderer(), JSONRenderer.media_type
    if isinstance(error, UnsupportedMediaType):
        error = ParseError(f"{error.detail} Send JSON, with Content-Type: application/json")
    elif isinstance(error, RequestDataTooBig):
        # Take a little of it off the wire, so that a client that is still sending sees the answer.
        for _ in range(10):
            if not request._request.read(settings.BODY_MAX):
                break
        error = ParseError(f"The body is too large: at most {settings.BODY_MAX} bytes are taken.")
    elif isinstance(error, SuspiciousOperation):
        error = ParseError(str(error))
    elif no_answer(error):
        away(error)
        error = Unavailable(NOT_MIGRATED if unmigrated(error) else None)
    response = exception_handler(error, context)
    if response is None:
        response = Response({"detail": BROKEN}, 500)
        log_response("Internal Server Error: %s", request.path, response=response, request=request,
                     exception=cause)
    elif "detail" not in response.data:         # of the filters: {name: [reason, ...], ...}
        errors = [{"parameter": name, "reason": str(reason)}
                  for name, reasons in response.data.items() for reason in reasons]
        response.data = {"detail": " ".join(f"{bad['parameter']}: {bad['reason']}" for bad in errors),
                         "errors": errors}
    return response


def of_api(request):
    """Whether the request is for /api or anything below it."""
    return f"{request.path}/".startswith("/api/")


def outside(request, status, detail, words=None, headers=None, title=None):
    """An answer that no view of the API gives: below /api/ in its one shape, to people in a line of text, `words`
    if that says something else, and to their browsers, under `title`, on a page."""
    if of_api(request):
        return JsonResponse({"detail": detail}, status=status, headers=headers)
    if title and "text/html" in request.headers.get("Accept", ""):
        page = render_to_string("said.html", {"title": title, "text": words or detail})
        return HttpResponse(page, status=status, headers=headers)
    return HttpResponse(f"{words or detail}\n", "text/plain", status, headers=headers)


def unavailable(request, error):
    """The answer when the database gives none, outside of a view of the API."""
    if unmigrated(error):
        return outside(request, Unavailable.status_code, NOT_MIGRATED, headers={"Retry-After": RETRY_AFTER},
                       title="The database is not migrated")
    return outside(request, Unavailable.status_code, Unavailable.default_detail,
                   "The database does not answer. Try again in some seconds; what you sent may have been taken all "
                   "the same.", {"Retry-After": RETRY_AFTER}, "The database does not answer")


def not_found(request):
    """The page for an address that there is not."""
    return HttpResponseNotFound(render_to_string("404.html"))


def server_error(request):
    """Django's handler500, for what went wrong outside of a view: in the middleware of sessions, say."""
    error = sys.exc_info()[1]
    if no_answer(error):
        away(error)
        return unavailable(request, error)
    if of_api(request):
        return outside(request, 500, BROKEN)
    return defaults.server_error(request)


class ReporterFilter(SafeExceptionReporterFilter):
    """Leaves out of that page what was typed into fields for secrets, also when nobody has read it yet. Django's own
    does so only while DEBUG is off, when nobody sees the page."""

    def get_post_parameters(self, request):
        return {name: self.cleanse_setting(name, value) for name, value in (request.POST.items() if request else ())}


class Reporter(ExceptionReporter):
    """DEBUG's page of an error, which shows every setting and every variable: without the passwords,
    wherever they stand. Django's own filter goes by the names of settings alone."""

    def get_traceback_html(self):
        return hidden(super().get_traceback_html())

    def get_traceback_text(self):
        return hidden(super().get_traceback_text())
