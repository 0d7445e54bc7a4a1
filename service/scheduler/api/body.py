"""How the body of a request is read."""
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from .errors import Refusal


class SafeJSONParser(JSONParser):
    """JSON, with a 400 (ParseError) also for what the standard library cannot bear."""

    def parse(self, stream, media_type=None, parser_context=None):
        try:
            return super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError("The body is nested too deeply.")


def body(request):
    """What `request` asks for, of JSON. Raises Refusal if Django would not read it: it takes a body without a
    length for none."""
    if "HTTP_TRANSFER_ENCODING" in request.META:
        raise Refusal("The body must come with a Content-Length; chunks are not taken.")
    return request.data
