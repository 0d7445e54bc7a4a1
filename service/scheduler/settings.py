"""Every setting of the service, read from the environment (README.md lists them in a table).

Two ways to run:

* local development, DEBUG on: nothing has to be set, and the API is open to this machine alone;
* anything else: SECRET_KEY and ALLOWED_HOSTS must be set or Django refuses to start, and every
  request needs a token or an admin session.
"""
import re
import socket
import warnings
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

import environ
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email
from kombu import Exchange, Queue
from redis import ConnectionPool, RedisError

from .base import broker, channels, zones
from .base.database import PostgresqlConnection, SqliteConnection

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()


def number(name, default, least):
    """The number in the environment variable `name`, or `default`. Raises ImproperlyConfigured
    when it is none, or below `least`."""
    try:
        value = env.float(name, default=default)
    except ValueError:
        value = None
    if value is None or not least <= value < float("inf"):
        raise ImproperlyConfigured(
            f"{name}={env.str(name)!r} in the environment must be a number of at least {least}.")
    return int(value) if isinstance(default, int) else value


# --- What is called, and how -----------------------------------------------------------------

API_URL = env.str("API_URL", default="https://ifconfig.co")
CONNECT_TIMEOUT = number("CONNECT_TIMEOUT", 10.0, 0.1)  # seconds, for one connection
TIMEOUT = number("TIMEOUT", 30.0, 0.1)      # seconds, for one whole call, redirects and body with it
GRACE = number("GRACE", 60.0, 1)            # seconds after its time in which a call may still start
BODY_LIMIT = number("BODY_LIMIT", 1_000_000, 0)         # bytes of an answer read before it is dropped
CALL_LOG = Path(env.str("CALL_LOG", default=str(BASE_DIR / "logs" / "api_calls.log")))

TARGET_NETWORKS = []        # where targets may be, beside public addresses (calls/networks.py)
for _text in filter(None, map(str.strip, env.list("TARGET_NETWORKS", default=[]))):
    try:
        TARGET_NETWORKS.append(ip_network(_text))
    except ValueError as error:
        raise ImproperlyConfigured(
            f"TARGET_NETWORKS in the environment must be networks, separated by commas, such as 10.0.0.0/8,fd00::/8: {error}."
        ) from None

# The HTTP proxy for all targets, and for nothing else. It, and not this service, then decides where they may be.
TARGET_PROXY = env.str("TARGET_PROXY", default="")
try:
    _proxy = urlsplit(TARGET_PROXY)
    _good = not TARGET_PROXY or (_proxy.scheme in ("http", "https") and _proxy.hostname and (_proxy.port or True)
                                 and re.fullmatch("[!-~]+", TARGET_PROXY) and _proxy.path in ("", "/")
                                 and not (_proxy.query or _proxy.fragment))
except ValueError:
    _good = False
if not _good:                               # without its text, as that may hold a password
    raise ImproperlyConfigured(
        "TARGET_PROXY in the environment must be http://host:3128 or https://user:password@host:3128; special characters "
        "in a password are percent-encoded.")

# --- What may be asked for -------------------------------------------------------------------

MAX_TIMESTAMPS = number("MAX_TIMESTAMPS", 10_000, 1)    # in one request
BODY_MAX = number("BODY_MAX", 1_000_000, 1000)          # bytes of a request
DATA_UPLOAD_MAX_MEMORY_SIZE = BODY_MAX
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1100    # a page of the admin's list has up to 1000 calls to tick
WRITE_RATE = env.str("WRITE_RATE", default="120/min")   # POSTs, PATCHes and DELETEs, for each user
if not re.fullmatch("[1-9][0-9]*/(s|sec|second|m|min|minute|h|hour|d|day)", WRITE_RATE):
    raise ImproperlyConfigured(
        f"WRITE_RATE={WRITE_RATE!r} in the environment must be a number per second, minute, hour or day, "
        "such as 120/min.")

# --- The engine (the reasons are in calls/ and tasks.py) -------------------------------------

TICK = number("TICK", 2.0, 0.2)             # seconds between two runs of the dispatcher
WINDOW = number("WINDOW", 10.0, 5)          # seconds ahead of its time that a call is handed over
LEAD = number("LEAD", 0.5, 0)               # seconds ahead of its time that a call begins to connect
CHUNK = number("CHUNK", 100, 1)             # calls of the same second in one message
LEASE = number("LEASE", 45.0, 5)            # seconds without a sign of life, then a worker is dead
CALLS_AT_ONCE = number("CALLS_AT_ONCE", 1000, 1)        # in one worker process

# --- Security --------------------------------------------------------------------------------

DEBUG = env.bool("DEBUG", default=False)
LOOPBACK_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

if DEBUG:
    SECRET_KEY = env.str("SECRET_KEY", default="django-insecure-for-local-development-only")
    ALLOWED_HOSTS = LOOPBACK_HOSTS
else:
    SECRET_KEY = env.str("SECRET_KEY", default="")
    ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])
    if not SECRET_KEY:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set. Put 50 or more random characters into the environment, the same "
            "on every machine: python3 -c 'import secrets; print(secrets.token_urlsafe(50))'. "
            "(For local development set DEBUG=true instead.)")
    if not ALLOWED_HOSTS:
        raise ImproperlyConfigured(
            "ALLOWED_HOSTS is not set. Name the hosts this service answers for, separated by "
            "commas: ALLOWED_HOSTS=scheduler.example.org. (For local development set DEBUG=true "
            "instead.)")

if len(SECRET_KEY) < 32:
    raise ImproperlyConfigured(
        f"SECRET_KEY has {len(SECRET_KEY)} characters, which can be guessed; take 50 random ones: "
        "python3 -c 'import secrets; print(secrets.token_urlsafe(50))'")

# What the secrets of targets are encrypted with (base/secrets.py): the first; the others still decrypt.
SECRETS_KEY = [key.strip() for key in env.list("SECRETS_KEY", default=[SECRET_KEY])]
if not SECRETS_KEY or any(len(key) < 32 for key in SECRETS_KEY):
    raise ImproperlyConfigured(             # without its text
        "SECRETS_KEY in the environment must be texts of at least 32 random characters, separated by commas, the one that "
        "encrypts first: python3 -c 'import secrets; print(secrets.token_urlsafe(50))'")

# HTTPS is expected everywhere but in local development. HTTPS=false is for a closed network.
HTTPS = env.bool("HTTPS", default=not DEBUG)
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]     # load balancers ask over plain HTTP
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
# These two speak for hosts that are not this service's, and are hard to take back.
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.bool("HSTS_SUBDOMAINS", default=False)
SECURE_HSTS_PRELOAD = env.bool("HSTS_PRELOAD", default=False)
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]     # that ask for them
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_NAME = "scheduler_sessionid"  # cookies know no ports: leave a neighbour's alone
CSRF_COOKIE_NAME = "scheduler_csrftoken"
TRUST_PROXY = env.bool("TRUST_PROXY", default=False)    # only behind a proxy that sets these headers itself
if TRUST_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
METRICS_OPEN = env.bool("METRICS_OPEN", default=False)  # /metrics for everybody who can reach it
DEFAULT_EXCEPTION_REPORTER = "scheduler.api.errors.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "scheduler.api.errors.ReporterFilter"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator",
                 "CommonPasswordValidator", "NumericPasswordValidator")
]

# Ten wrong passwords for a name from one address, and it must wait. Kept in the database, so that it
# holds for all web processes, and whether Redis is up or not.
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=10)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "scheduler.api.access.client_address"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_LOCKOUT_TEMPLATE = "lockout.html"
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False

# --- Django ----------------------------------------------------------------------------------

INSTALLED_APPS = [
    "scheduler",
    "scheduler.site.Admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework.authtoken",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
]
MIDDLEWARE = [
    "scheduler.ops.health.for_any_host",
    "scheduler.api.middleware.own_host",
    "scheduler.api.middleware.own_404",
    "scheduler.api.middleware.in_time",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
    "scheduler.api.middleware.DatabaseAway",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
        "scheduler.admin.forms.key",
    ]},
}]
ROOT_URLCONF = "scheduler.urls"
WSGI_APPLICATION = "scheduler.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
zones.choose()
TIME_ZONE = env.str("TIME_ZONE", default="UTC")     # of the log's stamps and the admin's pages
try:
    ZoneInfo(TIME_ZONE)
except (KeyError, ValueError, OSError):
    raise ImproperlyConfigured(
        f"TIME_ZONE={TIME_ZONE!r} in the environment must be the name of a time zone that this machine "
        "knows, such as Europe/Berlin.") from None
FORMAT_MODULE_PATH = "scheduler.formats"    # one form of times on all pages: with seconds and the zone
STATIC_URL = "static/"
STATIC_ROOT = env.str("STATIC_ROOT", default=str(BASE_DIR / "staticfiles"))
if not DEBUG:
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }
LOGGING_CONFIG = "scheduler.base.output.configure"  # no library's logger writes a secret
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"told": {       # a 503: by a line when the database goes (base/outage.py), to whoever asks for /healthz
        "()": "django.utils.log.CallbackFilter",
        "callback": lambda record: getattr(record, "status_code", None) != 503}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "filters": ["told"]},
                 "nowhere": {"class": "logging.NullHandler"}},
    "loggers": {
        "scheduler": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        # Each 500 with its traceback. Not what strangers can cause at will: 404s, other people's Hosts.
        "django": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
        "django.security": {"handlers": ["nowhere"], "propagate": False},
        "psycopg.pool": {"level": "ERROR"},     # a line for each attempt; who needed the connection says it
        # Says of each request at DEBUG, and of odd answers at WARNING, what it asked for: the URL in parts, which
        # nobody can tell from other words. How each call ended is in its row.
        "urllib3": {"handlers": ["nowhere"], "propagate": False},
        "apprise": {"handlers": ["nowhere"], "propagate": False},       # the same
    },
}

# --- Database --------------------------------------------------------------------------------

DATABASE_TIMEOUT = number("DATABASE_TIMEOUT", 5.0, 0.5)     # seconds; see base/database.py

warnings.filterwarnings("ignore", "Engine not recognized")      # django-environ's, with the password
try:
    DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{quote(str(BASE_DIR / 'db.sqlite3'))}")}
except ValueError:
    DATABASES = {"default": {}}
if not DATABASES["default"].get("ENGINE", "").endswith(("sqlite3", "postgresql")):
    raise ImproperlyConfigured(         # without its text, as that may hold a password
        "DATABASE_URL in the environment must be sqlite:////path/of/a/file or "
        "postgres://user:password@host:5432/name.")
_options = DATABASES["default"].setdefault("OPTIONS", {})
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # WAL lets readers go on while one writes. IMMEDIATE takes the write lock when a transaction
    # begins: one that reads first and writes later fails at once, however long the timeout.
    # `synchronous` stays FULL: a claim that a power cut takes back would be made a second time.
    _options.setdefault("factory", SqliteConnection)
    _options.setdefault("transaction_mode", "IMMEDIATE")
    _options.setdefault("timeout", DATABASE_TIMEOUT)        # for the write lock
    _options.setdefault("init_command", "PRAGMA journal_mode=WAL")
else:
    # However many chunks are under way in a process, it holds at most this many connections. A web process
    # needs one for each thread: a request keeps its own while a password is hashed, and others wait, and fail.
    _options.setdefault("pool", {
        "min_size": 1, "max_size": number("DATABASE_POOL", 32, 1), "connection_class": PostgresqlConnection,
        "timeout": 3, "reconnect_timeout": 3})      # seconds
    _options.setdefault("target_session_attrs", "read-write")       # of several servers, the one that takes writes
    _options.setdefault("connect_timeout", 3)
    _ms = int(DATABASE_TIMEOUT * 1000)
    _options.setdefault("options", f"-c statement_timeout={_ms} -c lock_timeout={_ms // 2} "
                                   f"-c idle_in_transaction_session_timeout={_ms * 5}")
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True   # a restarted server must not cost a call

# --- Broker ----------------------------------------------------------------------------------

# Beside a running `up` that has a broker of its own, that one.
REDIS_URL = env.str("REDIS_URL", default=broker.noted(CALL_LOG.parent) or "redis://localhost:6379/0")
try:
    ConnectionPool.from_url(REDIS_URL).make_connection()
    _redis = urlsplit(REDIS_URL)
    _good = _redis.scheme in ("redis", "rediss") and re.fullmatch("/?[0-9]*", _redis.path)
except (RedisError, TypeError, ValueError):
    _good = False
if not _good:                               # without its text, as that may hold a password
    raise ImproperlyConfigured(
        "REDIS_URL in the environment must be redis://:password@host:6379/0, or rediss:// and so on with TLS; "
        "special characters in a password are percent-encoded, / as %2F.")
_redis_timeouts = {                         # seconds
    "socket_connect_timeout": 1,
    "socket_timeout": 3,                    # longer than a worker's longest wait for a message
    "socket_keepalive": True,
}
CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_TRANSPORT_OPTIONS = {
    **_redis_timeouts,
    "ack_emulation": False,                 # a message that is lost is sent again by the dispatcher, so none is kept
    # A request must not wait for a dead broker: its rows are safe, the dispatcher comes for them.
    "max_retries": 0, "interval_start": 0, "interval_step": 0.2, "interval_max": 1,
    "connect_retries_timeout": 2,
}
CELERY_TASK_PUBLISH_RETRY = False
CELERY_BROKER_CONNECTION_TIMEOUT = 2        # seconds
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # workers and beat wait for the broker as long as it takes
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CHANNEL_ERROR_RETRY = True    # also for one that is there, and takes no writes
CELERY_TASK_IGNORE_RESULT = True            # no result backend: the outcome is in the row
CELERY_TASK_QUEUES = [Queue(name, Exchange(name), routing_key=name)
                      for name in ("scheduler.calls", "scheduler.ticks", "scheduler.notices")]
CELERY_TASK_DEFAULT_QUEUE = "scheduler.calls"
CELERY_TASK_ROUTES = {"scheduler.tasks.tick": {"queue": "scheduler.ticks"},    # never behind calls
                      # Of its own: workers of the version before do not know this task.
                      "scheduler.tasks.notify": {"queue": "scheduler.notices"}}
CELERY_WORKER_POOL = "solo"                 # a task only passes on what came; see tasks.py
CELERY_WORKER_CONCURRENCY = CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# Who can write to Redis could end workers by it; and its queue is written each second, with a traceback for each
# time that a full Redis refuses.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True    # there are none; otherwise it warns of them
CELERY_BEAT_SCHEDULER = "scheduler.celery:Beat"     # an interval needs no file to remember it by
CELERY_BEAT_MAX_LOOP_INTERVAL = TICK

# --- Being told (ops/notify.py) --------------------------------------------------------------

NOTIFY = []
if _text := env.str("NOTIFY", default="").strip():
    try:
        NOTIFY = channels.read(_text)
    except ValueError as error:             # without its text, which holds what lets into each channel
        raise ImproperlyConfigured(f"NOTIFY in the environment: {error} See https://github.com/caronc/apprise/wiki.") from None

HEARTBEAT_URL = env.str("HEARTBEAT_URL", default="")    # called each minute while all is well

FAILURES_TO = [address.strip() for address in env.list("FAILURES_TO", default=[])]
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="api-scheduler@" + (socket.gethostname() or "localhost"))
for _address in FAILURES_TO:
    try:
        validate_email(_address)
    except ValidationError:
        raise ImproperlyConfigured(
            f"FAILURES_TO: {_address!r} is no mail address. Give one, or several separated by commas: "
            "FAILURES_TO=ops@example.org,ann@example.org.") from None
if not (DEFAULT_FROM_EMAIL.isprintable()
        and re.fullmatch(r"[^@<>,\s]+@[^@<>,\s]+|[^@<>,]+ <[^@<>,\s]+@[^@<>,\s]+>", DEFAULT_FROM_EMAIL)):
    raise ImproperlyConfigured(
        f"DEFAULT_FROM_EMAIL={DEFAULT_FROM_EMAIL!r} in the environment must be a mail address, such as "
        "scheduler@example.org or Scheduler <scheduler@example.org>.")

EMAIL_URL = env.str("EMAIL_URL", default="smtp://localhost")
EMAIL_TIMEOUT = 30                          # seconds, for one answer of the mail server
try:
    _mail = urlsplit(EMAIL_URL)
    _good = (_mail.scheme in ("smtp", "smtp+tls", "smtp+ssl") and _mail.hostname and (_mail.port or True)
             and bool(_mail.username) == bool(_mail.password)
             and re.fullmatch("[!-~]+", EMAIL_URL) and not (_mail.path.strip("/") or _mail.query or _mail.fragment))
except ValueError:
    _good = False
if not _good:                               # without its text, as that may hold a password
    raise ImproperlyConfigured(
        "EMAIL_URL in the environment must be smtp://host:25, smtp+tls://user:password@host:587 (STARTTLS) or "
        "smtp+ssl://user:password@host:465 (TLS at once); special characters of a password are "
        "written %40 and so on.")
vars().update(env.email_url_config(EMAIL_URL))
EMAIL_PORT = _mail.port or {"smtp": 25, "smtp+tls": 587, "smtp+ssl": 465}[_mail.scheme]

# The cache counts writes for the throttle, for all web processes together.
CACHES = {"default": {
    "BACKEND": "django.core.cache.backends.redis.RedisCache",
    "LOCATION": REDIS_URL,
    "KEY_PREFIX": "scheduler",
    "VERSION": 2,       # under 1 lies pickle: web servers that write it may still be up, and cannot read JSON
    "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1, "serializer": "scheduler.api.access.JSONCache"},
}}

# --- The API ---------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",    # first: it makes a 401 of no credentials
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["scheduler.api.access.MayUse"],
    "DEFAULT_THROTTLE_CLASSES": ["scheduler.api.access.WriteThrottle"],
    "DEFAULT_THROTTLE_RATES": {"write": WRITE_RATE},
    # JSON only. A form could be posted by any web page that a local developer happens to open.
    "DEFAULT_PARSER_CLASSES": ["scheduler.api.body.SafeJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "scheduler.api.errors.explain",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "API Scheduler",
    "DESCRIPTION": "Calls APIs at the times asked for, and accounts for every call. Reading needs the "
                   "permission `scheduler.view_scheduledcall`, scheduling `scheduler.add_scheduledcall`, "
                   "cancelling `scheduler.change_scheduledcall`; schedules and targets have four of their own, such as "
                   "`scheduler.view_schedule`, and targets two more, `scheduler.use_target` and "
                   "`scheduler.see_request`. They are the same as in the admin, with a token as with a session.",
    "VERSION": "1.0.0",
    "SERVE_INCLUDE_SCHEMA": False,
    # What the page runs can do what its reader can: none of it comes from elsewhere.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {"CallStatus": "scheduler.models.ScheduledCall.Status"},
    "SERVE_PERMISSIONS": ["scheduler.api.access.MayUse"],
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "scheduler.api.examples.with_examples"],
}

# --- What must not wait until the first call to be found wrong ---------------------------------


def _check_url(name, url, example):
    """Raises ImproperlyConfigured unless `url` is a plain http or https URL."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good or any(c.isspace() or not c.isprintable() for c in url):
        raise ImproperlyConfigured(
            f"{name} must be a whole http:// or https:// URL without spaces or control "
            f"characters, such as {example}.")


_check_url("API_URL", API_URL, "https://ifconfig.co")
if HEARTBEAT_URL:
    _check_url("HEARTBEAT_URL", HEARTBEAT_URL, "https://hc-ping.com/your-uuid")
if TICK > min(WINDOW / 2, 15):
    raise ImproperlyConfigured("TICK must be at most half of WINDOW, or calls are handed over late, and "
                               "at most 15 s, or /healthz takes the dispatcher for dead.")
