"""What is called. Changed by calls/targets.py alone."""
from django.db import models

from ..base.clock import utcnow


class Pausable:
    """What can be paused, until somebody resumes it or until a time: a target or a schedule. See calls/targets.py
    for the same in a query."""

    def is_paused(self, now):
        """Whether it is, at the aware datetime `now`."""
        return self.paused_at is not None and (self.paused_until is None or now < self.paused_until)

    @property
    def pause(self):
        """By whom and why, in words: "paused by ann: the API is being moved"."""
        by = f" by {self.paused_by}" if self.paused_by else ""
        return f"paused{by}{self.paused_reason and f': {self.paused_reason}'}"


class Target(Pausable, models.Model):
    """One API, or one thing that it does, and how it is asked.

    A deleted one stays, unseen, for as long as there are calls that name it.
    """

    class Method(models.TextChoices):
        GET = "GET"
        HEAD = "HEAD"
        POST = "POST"
        PUT = "PUT"
        PATCH = "PATCH"
        DELETE = "DELETE"
        OPTIONS = "OPTIONS"

    SAFE = (Method.GET, Method.HEAD, Method.OPTIONS)    # RFC 9110, 9.2.1: asking again changes nothing

    name = models.CharField(max_length=64, help_text="What requests and files call it: letters, digits, - _ and .")
    url = models.CharField("URL", max_length=2000)
    method = models.CharField(max_length=7, choices=Method, default=Method.GET)
    headers = models.JSONField(default=dict, blank=True, help_text="{name: value}")
    body = models.TextField(blank=True)
    auth = models.JSONField(
        default=dict, blank=True,
        help_text="How it proves who it is: kind (none, basic, bearer, header, oauth2), and what of that is no secret.")
    secrets = models.TextField(
        blank=True, editable=False,
        help_text="Encrypted (base/secrets.py): JSON with headers {name: value}, auth {name: value} and signing "
                  "[key, ...].")
    secret_names = models.JSONField(
        default=dict, editable=False,
        help_text="What there is in `secrets`, without the values, each with the time of its change: "
                  "{\"headers\": {name: ISO 8601}, \"auth\": {...}, \"signing\": [ISO 8601, ...]}.")
    connect_timeout = models.FloatField(null=True, blank=True, help_text="Seconds; CONNECT_TIMEOUT if it is empty.")
    timeout = models.FloatField(null=True, blank=True, help_text="Seconds, for one whole attempt; TIMEOUT if it is empty.")
    statuses = models.CharField(
        max_length=100, default="100-399", help_text="HTTP statuses that are a success: 200-299, 404.")
    contains = models.CharField(max_length=500, blank=True, help_text="Text that the answer must have in it.")
    not_contains = models.CharField(max_length=500, blank=True, help_text="Text that it must not have in it.")
    follow_redirects = models.BooleanField(default=True)
    delays = models.JSONField(
        default=list, blank=True, help_text="Seconds from the end of an attempt to the next: [10, 60, 600]; none: no retries.")
    max_age = models.PositiveIntegerField(
        null=True, blank=True, help_text="Seconds after the due time in which a retry may still start.")
    repeatable = models.BooleanField(
        default=False, help_text="It may be asked again although it has perhaps done what it was asked for.")
    max_at_once = models.PositiveIntegerField(null=True, blank=True, help_text="Calls under way at once, at most.")
    rate = models.CharField(max_length=20, blank=True, help_text="Requests at most, such as 300/min.")
    keep_failures = models.PositiveIntegerField(default=16384, help_text="Bytes of the body of an answer that is no success.")
    keep_successes = models.PositiveIntegerField(default=0, help_text="Bytes of the body of one that is.")
    keep_days = models.PositiveIntegerField(default=30, help_text="Days for which the attempts are kept.")
    paused_at = models.DateTimeField(null=True, editable=False)
    paused_until = models.DateTimeField(null=True, editable=False, help_text="Null: until somebody resumes it.")
    paused_by = models.CharField(max_length=150, blank=True, editable=False)
    paused_reason = models.CharField(max_length=200, blank=True, editable=False)
    version = models.PositiveIntegerField(default=1, editable=False, help_text="Counts its changes, from 1.")
    created_at = models.DateTimeField("created", default=utcnow, editable=False)
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)
    free_at = models.DateTimeField(
        null=True, editable=False, help_text="Of its rate: when the next request is due that is not ahead of it (GCRA).")

    class Meta:
        ordering = ["name"]
        permissions = [("use_target", "Can schedule calls for target"), ("see_request", "Can see what is sent to target")]
        constraints = [models.UniqueConstraint(
            fields=["name"], condition=models.Q(deleted_at=None), name="one_target_of_a_name",
            violation_error_message="There is a target of this name already.")]

    def __str__(self):
        return f"{self.name} (deleted)" if self.deleted_at else self.name
