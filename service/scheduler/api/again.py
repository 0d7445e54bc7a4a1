"""What a POST to again/ asks for: which calls are to be made again."""
from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from rest_framework import serializers

from ..calls import outcomes
from ..calls.ledger import batches
from ..models import ScheduledCall
from .body import of_keys
from .call_filter import CallFilter
from .errors import Refusal

SHOWN = 10
ENDED = [str(status) for status in ScheduledCall.FINISHED]
CLASSES = [outcomes.NOTHING, outcomes.REFUSED, outcomes.UNKNOWN, outcomes.ANSWERED]
LISTS = {"status": (ENDED, ": only calls that have ended are made again"), "class": (CLASSES, "")}


class AgainSerializer(serializers.Serializer):
    """Which calls: the filters of the list. Read by `read`, whose words are for people."""

    status = serializers.ListField(
        child=serializers.ChoiceField([(status, status) for status in ENDED]), allow_empty=False,
        help_text="Any of these; only calls that have ended are made again.")
    due_from = serializers.CharField(required=False, help_text="Due at this ISO 8601 time or later.")
    due_before = serializers.CharField(required=False, help_text="Due before this ISO 8601 time.")
    schedule = serializers.IntegerField(required=False, help_text="Planned by the schedule of this id.")
    target = serializers.CharField(required=False, help_text="For the target of this name.")
    dry_run = serializers.BooleanField(required=False, help_text="Whether nothing is to be done but to say what would be.")

    def get_fields(self):
        """With the one whose name is a word of Python."""
        return super().get_fields() | {"class": serializers.ListField(
            child=serializers.ChoiceField([(name, name) for name in CLASSES]), required=False, allow_empty=False,
            help_text="Whose last attempt failed with any of these: without `unknown`, nothing that the API has perhaps done.")}


def read(data):
    """({name of a filter: its value}, whether it is a dry run) of `data`, of json.loads. Raises Refusal."""
    filters = CallFilter.base_filters
    of_keys(data, known := [*filters, "class", "dry_run"])
    problems = {}
    for name, (choices, why) in LISTS.items():
        if name != "status" and name not in data:
            continue
        wanted = data.get(name)
        if not isinstance(wanted, list) or not wanted or not all(one in choices for one in wanted):
            problems[name] = f"Must be a list with some of {', '.join(choices)}{why}."
    if not isinstance(data.get("dry_run", False), bool):
        problems["dry_run"] = "Must be true or false."
    for name in set(data) & set(filters) - set(LISTS):
        if name == "schedule" and isinstance(data[name], int) and not isinstance(data[name], bool):
            continue
        if name == "schedule" or not isinstance(data[name], str):
            problems[name] = "Must be a number." if name == "schedule" else "Must be a string."
    if problems:
        raise Refusal.of({name: problems[name] for name in known if name in problems})
    return {name: str(value) if name == "schedule" else value for name, value in data.items() if name != "dry_run"}, data.get("dry_run", False)


def chosen(filters):
    """({id of a call: the class of its failure or None}, the earliest first, and at most MAX_TIMESTAMPS; whether there
    are more of them). Each is made again once: of those that were already, the call that repeats them is meant, if any.
    Those of a deleted target cannot be, and are left out.

    filters: as of `read`
    Raises Refusal.
    """
    found = CallFilter(filters, ScheduledCall.objects.all())
    if not found.is_valid():
        raise Refusal.of({name: " ".join(map(str, reasons)) for name, reasons in found.errors.items()})
    calls = found.qs.filter(Q(target=None) | Q(target__deleted_at=None), ~_repeated()).order_by("timestamp", "id")
    if "class" in filters:
        calls = calls.filter(failure__in=filters["class"])
    rows = list(calls.values_list("id", "failure", "timestamp")[:settings.MAX_TIMESTAMPS + 1])
    some = rows[:settings.MAX_TIMESTAMPS]
    return {row[0]: row[1] for row in some}, len(rows) > len(some)


def _repeated():
    return Exists(ScheduledCall.objects.order_by().filter(again_of=OuterRef("pk")))


def held(ids):
    """Those of `ids` that nobody has made again, in their order; locked, so that nobody else does."""
    free = set()
    for batch in batches(ids):
        some = ScheduledCall.objects.filter(id__in=batch)
        # In the order of all who lock several rows. Who waited here sees in the second what the other has made.
        list(some.order_by("id").select_for_update().values_list("id"))
        free |= set(some.filter(~_repeated()).values_list("id", flat=True))
    return [call_id for call_id in ids if call_id in free]
