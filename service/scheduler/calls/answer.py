"""The answer to one request, its head read as browsers and curl read it.

http.client takes an interim answer (103, say) for the answer, believes no line behind one that is malformed,
and takes no more than 100. `Answer` reads the head itself; the body is http.client's, which goes by what
`begin` sets here.
"""
import http.client
import io
import re
import ssl

from django.conf import settings

HEAD_MAX = 262144           # bytes of the heads of one answer, interim ones included; Chrome's limit, curl's is 300 kB
ONCE = {"location", "retry-after", "content-type"}      # headers of which the first counts, as curl has it

_START = re.compile(rb"HTTP/1\.([0-9])[ \t]+([1-9][0-9]{2})(?:[ \t]+(.*))?", re.DOTALL)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NUMBER = re.compile("[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?\r?\n", re.DOTALL)


class BadAnswer(http.client.HTTPException):
    """What came is no answer that HTTP/1.1 knows, or not the whole of its head."""


class Headers(http.client.HTTPMessage):
    """Those of an answer. A call is told to remember nothing: reading thousands of cookies would take longer than all
    the rest, and http.cookiejar writes a traceback where it cannot."""

    def get_all(self, name, failobj=None):
        return failobj if name.lower() in ("set-cookie", "set-cookie2") else super().get_all(name, failobj)


class Answer(http.client.HTTPResponse):
    """http.client makes one for each request, with the `response_class` of its connection.

    `begin` is overridden, as nothing else decides what is the answer and where its body ends; it sets all
    that http.client's own would: `version`, `status`, `reason`, `headers`, `chunked`, `length` and so on.
    """

    def __init__(self, sock, debuglevel=0, method=None, url=None, *, ended, began=lambda: None):
        """began(): called when the first byte has come
        ended(answer): called once, when the body has been read to its end, or was given up"""
        super().__init__(sock, debuglevel, method, url)
        self._began = began
        self._sock, self._to_head = sock, method == "HEAD"
        self._stream = self.fp = _Stream(self.fp.detach(), lambda: ended(self))

    def begin(self, **_):
        """Reads interim answers away, and the head of the one that follows them. 101 is none: what comes
        behind it is no HTTP any more (RFC 9110, 15.2).

        Raises BadAnswer, or http.client.RemoteDisconnected when the server closes instead of answering.
        """
        if self.headers is not None:
            return
        self._stream.peek(1)
        self._began()
        while True:
            version, status, reason, lines = self._read_head()
            if status >= 200 or status == 101:
                break
        self.version, self.reason = version, reason
        self.code = self.status = status
        headers, once = Headers(), set()
        for name, value in fields(lines):
            if name.lower() not in once:
                headers[name] = value
            once |= {name.lower()} & ONCE
        self._frame(headers)
        self._stream.expect(self.chunked)
        self.headers = self.msg = headers

    def _read_head(self):
        """(10 or 11 for the version, the status, its reason, list of the header lines)"""
        start = self._stream.readline()
        if not start:
            raise http.client.RemoteDisconnected("Remote end closed connection without response")
        match = _START.fullmatch(start.rstrip(b"\r\n"))
        if not match:
            raise BadAnswer(f"no answer in HTTP/1: {start[:80].decode('latin-1').rstrip()}")
        lines = []
        while (line := self._stream.readline()) not in (b"\r\n", b"\n"):
            if not line.endswith(b"\n"):
                raise BadAnswer("the connection was closed in the middle of the answer's headers")
            lines.append(line[:-1])
        return 10 if match[1] == b"0" else 11, int(match[2]), (match[3] or b"").decode("latin-1").strip(), lines

    def _frame(self, headers):
        """Where the body ends, and whether the connection is good for another answer (RFC 9112, 6.3 and 9.3)."""
        def listed(name):       # what stands in all headers of that name, separated by commas, each once
            words = ",".join(headers.get_all(name, [])).lower().split(",")
            return list(dict.fromkeys(filter(None, map(str.strip, words))))

        codings, lengths, options = listed("Transfer-Encoding"), listed("Content-Length"), listed("Connection")
        self.chunked, self.chunk_left, self.length = False, None, None
        if self._to_head or self.status in (101, 204, 304):
            self.length = 0
        elif codings[-1:] == ["chunked"]:
            self.chunked = True
        elif len(lengths) > 1:
            raise BadAnswer(f"an answer with more than one length: {', '.join(lengths)}")
        elif lengths and _NUMBER.fullmatch(lengths[0]):
            self.length = int(lengths[0])
        persists = "close" not in options if self.version == 11 else "keep-alive" in options
        odd = self.status == 101 or bool(codings) and (bool(lengths) or self.version == 10)
        self.will_close = not persists or odd or not self.chunked and self.length is None

    def is_redirect(self):
        """Whether the same call goes on with another request, probably."""
        return self.headers is not None and 300 <= self.status < 400

    def followed(self):
        """Whether something lies behind the answer, once it has ended, or it is none. Reads away what there is."""
        if self.headers is None:
            return True
        self._sock.settimeout(0)
        try:
            return bool(self._stream.peek(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True


class _Stream(io.BufferedReader):
    """Says when it is closed. What is read of it line by line, the heads, the sizes of chunks and what follows the
    last of them, has an end: http.client would read on for ever. It would also take -1 and 0x10 for sizes."""

    def __init__(self, raw, closing):
        super().__init__(raw)
        self._closing = closing
        self._left, self._most = HEAD_MAX, f"an answer with headers of more than {HEAD_MAX} bytes"
        self._sizes = False             # the next line is the size of a chunk

    def expect(self, chunked):
        """The head has been read. chunked: whether the body comes in chunks"""
        # More than the sizes take where each chunk is one byte.
        self._left, self._most = HEAD_MAX + 4 * settings.BODY_LIMIT, "an answer with too much beside its body"
        self._sizes = chunked

    def readline(self, size=-1):
        line = super().readline(self._left + 1 if size < 0 else size)
        self._left -= len(line)
        if self._left < 0:
            raise BadAnswer(self._most)
        if self._sizes and line:        # else it was cut off, which http.client says
            if not (match := _CHUNK.fullmatch(line)):
                raise BadAnswer("a chunk of the answer has no size")
            self._sizes = int(match[1], 16) > 0
        return line

    def close(self):
        closing, self._closing = self._closing, None
        try:
            if closing:
                closing()
        finally:
            super().close()


def fields(lines):
    """[(name, value), ...], both str, of the header lines of an answer.

    lines: list of bytes, each without its line feed

    A blank before the colon is dropped (RFC 9112, 5.1), a folded line goes on with the one before it (5.2),
    CR and NUL within a line are blanks (RFC 9110, 5.5), and what is no header is skipped, with what is folded
    to it.
    """
    found = []
    known = False
    for line in lines:
        line = line.replace(b"\r", b" ").replace(b"\0", b" ")
        if line[:1] in (b" ", b"\t"):
            if known:
                found[-1][1] += b" " + line.strip()
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip()
        known = bool(colon and _NAME.fullmatch(name))
        if known:
            found.append([name, value.strip()])
    return [(name.decode("latin-1"), value.decode("latin-1").strip()) for name, value in found]
