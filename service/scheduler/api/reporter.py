"""What Django's pages and reports of an error leave out: every password among the settings."""
import html
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from django.conf import settings
from django.views.debug import ExceptionReporter


def secrets():
    """The passwords among the settings, in each form in which they may be written: set of str."""
    broker, api, mail = urlsplit(settings.REDIS_URL), urlsplit(settings.API_URL), urlsplit(settings.EMAIL_URL)
    found = {settings.SECRET_KEY, settings.DATABASES["default"].get("PASSWORD"), broker.password, api.password,
             mail.password}
    found |= {value for _, value in parse_qsl(broker.query + "&" + api.query) if len(value) > 5}
    found = {form for secret in found if secret for form in (secret, quote(secret, safe=""), unquote(secret))}
    return found | {html.escape(secret) for secret in found} | {repr(secret)[1:-1] for secret in found}


class Reporter(ExceptionReporter):
    """DEBUG's page of an error, which shows every setting and every variable: without the passwords,
    wherever they stand. Django's own filter goes by the names of settings alone."""

    def get_traceback_html(self):
        return hidden(super().get_traceback_html())

    def get_traceback_text(self):
        return hidden(super().get_traceback_text())


def hidden(text):
    """`text` with asterisks for every password among the settings."""
    for secret in sorted(secrets(), key=len, reverse=True):
        text = text.replace(secret, "********")
    return text
