"""What the loggers of this process may write: no library's writes a password, or a URL with what may be secret in it.

A library does not know what is secret, and may say anything: in a warning, at DEBUG, in the traceback of an
error that it met. So this is settled where each record is made, for all loggers and handlers there are, those
that Celery and gunicorn set up by themselves among them. What we say, we say without secrets.
"""
import logging
import logging.config

from .words import hidden, redacted


class ForeignRecord(logging.LogRecord):
    """A record of a logger that is not ours."""

    _traceback = None

    def getMessage(self):
        return _safe(super().getMessage())

    @property
    def exc_text(self):
        """The traceback as a handler's formatter wrote it: formatters keep it here, and show what is here."""
        return self._traceback

    @exc_text.setter
    def exc_text(self, text):
        self._traceback = text and _safe(text)


def _safe(text):
    return redacted(hidden(text))


def record(name, *args, **kwargs):
    """Makes the LogRecord of the logger `name`."""
    ours = name.partition(".")[0] == __name__.partition(".")[0]
    return (logging.LogRecord if ours else ForeignRecord)(name, *args, **kwargs)


def configure(config):
    """Django's LOGGING_CONFIG.

    config: dict, the setting LOGGING
    """
    logging.setLogRecordFactory(record)
    logging.config.dictConfig(config)
