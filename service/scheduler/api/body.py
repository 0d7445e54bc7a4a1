"""How the body of a request is read."""
import json

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from ..base.words import printable
from ..models import rules
from .errors import Refusal

# How compressed bodies begin, whether a header says so or not (RFC 1952, RFC 8878).
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class SafeJSONParser(JSONParser):
    """JSON in UTF-8, as RFC 8259 (section 8.1) has it: a byte order mark is skipped, and a charset that the
    header names has no meaning. Whatever is wrong is a ParseError, a 400, that names it."""

    def parse(self, stream, media_type=None, parser_context=None):
        coding = parser_context["request"].headers.get("Content-Encoding", "").strip().lower()
        body = stream.read()
        coding = next((name for start, name in COMPRESSED.items() if body.startswith(start)), coding)
        if coding not in ("", "identity"):
            raise ParseError(f"The body is compressed ({printable(coding, 80)}); send it as plain JSON.")
        encoding = json.detect_encoding(body)
        if not encoding.startswith("utf-8"):
            raise ParseError(f"The body is {encoding[:6].upper()}; send it as UTF-8.")
        try:
            value = json.loads(body.decode(encoding), cls=rules.Decoder)
        except UnicodeDecodeError as error:
            raise ParseError(f"The body is not UTF-8: its byte {error.start + 1} is 0x{body[error.start]:02x}.")
        except rules.Twice as error:
            raise ParseError(str(error))
        except RecursionError:
            raise ParseError("The body is nested too deeply.")
        except ValueError as error:
            raise ParseError(f"JSON parse error - {error}")
        try:
            return rules.shallow(value)     # how deep Python reads is not how deep it writes, or a database
        except ValueError:
            raise ParseError("The body is nested too deeply.")


def of_keys(data, known):
    """Raises Refusal unless `data`, of JSON, is an object that has no other keys than `known`."""
    if not isinstance(data, dict):
        raise Refusal(f"The body must be a JSON object, with some of the keys {', '.join(known)}.")
    if unknown := sorted(set(data) - set(known)):
        raise Refusal(f"There is no key {printable(unknown[0], 80)}; there are {', '.join(known)}.")


def body(request):
    """What `request` asks for, of JSON. Raises Refusal if Django would not read it: it takes a body without a
    length for none."""
    if "HTTP_TRANSFER_ENCODING" in request.META:
        raise Refusal("The body must come with a Content-Length; chunks are not taken.")
    return request.data
