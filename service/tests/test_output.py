"""What stands in the output of the processes: no secret, whoever writes there."""
import io
import logging
import warnings

import pytest
from conftest import all_ended, in_seconds
from django.test import override_settings
from test_answers import Raw

SECRETS = ("hunter2-and-more", "swordfish", "sesame-street")


def test_the_token_in_the_urls_is_in_no_output(stack, log):
    """Neither of API_URL nor of where it redirects to, at DEBUG and with answers that libraries warn of."""
    def play(connection, n):
        connection.sendall([
            b"HTTP/1.1 200 OK\r\nX : 1\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.1 302 Found\r\nLocation: /moved?signature=sesame-street\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
            b"no answer\r\n"][n % 5])
        return n % 5 < 3
    api = Raw(play)
    stack.loglevel = "DEBUG"
    stack.start("web", "worker", "beat", API_URL=api.url.replace("//", "//ann:swordfish@") + "/hook?token=hunter2-and-more")
    for _ in range(4):
        stack.post(in_seconds(1))
    for _ in range(4):
        stack.post(*[in_seconds(1)] * 2)
    all_ended(12)
    output = "".join(map(stack.says, stack.outputs)) + "\n".join(log())
    assert len(api.requests) > 12 and "Task scheduler.tasks.make_calls" in output, "it does say what it does"
    for secret in SECRETS:
        assert secret not in output
    assert "***@127.0.0.1" in output and "token=***" in output


@pytest.fixture
def said():
    """What any handler of any logger writes, as a function: a handler of somebody else, with a format of its own."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    logging.getLogger().addHandler(handler)
    yield stream.getvalue
    logging.getLogger().removeHandler(handler)


URL = "https://ann:swordfish@api.example:8443/hook?token=hunter2-and-more&sesame-street#part"


@pytest.mark.parametrize("say", [
    lambda logger: logger.warning(f"cannot parse {URL}"),
    lambda logger: logger.warning("cannot parse %s (%r): %d", URL, [URL], 3),
    lambda logger: logger.warning("broken", exc_info=ValueError(f"Invalid URL '{URL}'")),
    lambda logger: logger.error("cannot reach %(url)s", {"url": URL}),
], ids=["message", "arguments", "traceback", "mapping"])
@pytest.mark.parametrize("name", ["celery.app.trace", "requests.sessions", "anybody", "", "schedulers"])
def test_no_librarys_logger_writes_what_is_secret_in_a_url(said, name, say):
    say(logging.getLogger(name))
    assert "https://***@api.example:8443/hook?token=***&***" in said()
    for secret in SECRETS:
        assert secret not in said()


def test_nor_do_warnings(said):
    logging.captureWarnings(True)
    try:
        warnings.warn(f"unverified request to {URL}", stacklevel=1)
    finally:
        logging.captureWarnings(False)
    assert "unverified request to https://***@api.example" in said() and "swordfish" not in said()


def test_nor_a_password_of_the_settings_that_stands_in_no_url(said):
    with override_settings(REDIS_URL="redis://:swordfish@127.0.0.1:6379/0",
                           API_URL="https://api.example/hook?token=hunter2-and-more"):
        logging.getLogger("anybody").warning("AUTH %s, then GET %s", "swordfish", "/hook?token=hunter2-and-more")
    assert "AUTH ****" in said() and "swordfish" not in said() and "hunter2" not in said()


def test_what_we_say_ourselves_stands_as_it_is(caplog):
    """Lines of the log that could not be written, say, are to be added to it later."""
    with override_settings(REDIS_URL="redis://:API@127.0.0.1:6379/0"), caplog.at_level("ERROR", "scheduler"):
        logging.getLogger("scheduler.calls.log").error("the lines are:\n%s", "Successfully called API at https://a/?b=***")
        assert caplog.records[-1].getMessage() == "the lines are:\nSuccessfully called API at https://a/?b=***"
