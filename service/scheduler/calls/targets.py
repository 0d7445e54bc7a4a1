"""Every change of a target: nothing else writes its row, but for `free_at`, which is its limits'.

Whoever makes calls for a target does so in a transaction, and says `still_there` at its end. `delete` locks the row
before it counts: so it either sees those calls, or they see that it is deleted.
"""
from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from ..base.clock import utcnow
from ..base.secrets import reencrypt
from ..models import Schedule, ScheduledCall, Target

Status = ScheduledCall.Status

# What a change of makes another version.
CHANGES = [field.attname for field in Target._meta.concrete_fields if field.name not in (
    "id", *Target.PAUSE, "version", "created_at", "created_by", "deleted_at", "free_at")]


class InUse(Exception):
    """It cannot be deleted. Says what it is used by: {"calls": int, "schedules": int}."""

    def __init__(self, used):
        self.used = used
        parts = [f"{number} {word if number > 1 else word[:-1]}" for word, number in used.items() if number]
        one = sum(used.values()) == 1
        super().__init__(f"{' and '.join(parts).replace('call', 'pending call')} name{'s' if one else ''} it")


def paused_q(now):
    """The condition that a target is paused; one whose pause has ended is not, and needs no write.

    now: aware datetime or an expression such as Now()
    """
    return Q(paused_at__isnull=False) & (Q(paused_until=None) | Q(paused_until__gt=now))

def there():
    """The targets that are not deleted."""
    return Target.objects.filter(deleted_at=None)


def locked():
    """The same, locked by reading them until the transaction ends."""
    return there().select_for_update()


def still_there(ids):
    """Of a transaction that has written something that names the targets `ids`: raises Target.DoesNotExist if one of
    them was deleted meanwhile."""
    # Locked until that transaction ends: who deletes one now sees what it has written.
    for target in Target.objects.filter(id__in=set(ids)).order_by("id").select_for_update(no_key=True):
        if target.deleted_at:
            raise Target.DoesNotExist(f"The target {target.name} was deleted.")


@transaction.atomic
def save(target, by=""):
    """Writes `target`, new or changed, that `full_clean` has found good. What it says holds for pending calls too.

    by: the name of the user who asked for it
    Raises Target.DoesNotExist if it was deleted meanwhile, and IntegrityError if its name is taken.
    """
    if not target.pk:
        target.created_by = by
        target.save(force_insert=True)
        return
    stands = locked().get(pk=target.pk)
    if any(getattr(target, name) != getattr(stands, name) for name in CHANGES):
        target.version = stands.version + 1
        target.save(update_fields=[*CHANGES, "version"])


def pause(target, *said, **what):
    """Has nothing called for it until it is resumed, or until a time, as `begin_pause` says: what falls due meanwhile is
    Missed. It need not be locked."""
    target.begin_pause(*said, **what)
    target.save(update_fields=Target.PAUSE)


def resume(target):
    """Ends a pause. What was Missed stays so."""
    target.end_pause()
    target.save(update_fields=Target.PAUSE)


def used(ids):
    """What keeps targets from being deleted: {id: {"calls": int, "schedules": int}}, those that have not ended."""
    # Status by status: each has an index of its own, in which no call is that has ended.
    return {one: {"calls": sum(ScheduledCall.objects.filter(target=one, status=status).count()
                               for status in (Status.PENDING, Status.RUNNING, Status.RETRYING)),
                  "schedules": Schedule.objects.filter(target=one, deleted_at=None).count()} for one in ids}


@transaction.atomic
def delete(target_id):
    """Hides it, and forgets its secrets; its calls still name it.

    Raises InUse, and Target.DoesNotExist.
    """
    target = locked().get(pk=target_id)
    if any((by := used([target_id])[target_id]).values()):
        raise InUse(by)
    target.deleted_at, target.secrets, target.secret_names, target.version = utcnow(), "", {}, target.version + 1
    target.save(update_fields=["deleted_at", "secrets", "secret_names", "version"])


def prune():
    """Removes the rows of deleted targets that no call and no schedule names any more. Returns how many."""
    named = [Exists(model.objects.filter(target=OuterRef("pk"))) for model in (ScheduledCall, Schedule)]
    return Target.objects.filter(~named[0], ~named[1], deleted_at__isnull=False).delete()[0]


def reencrypt_all():
    """Has the secrets of all targets encrypted with the first of SECRETS_KEY. Returns (how many are, the names of those
    that cannot be read). Another version they become not by that."""
    done, unreadable = 0, []
    for target_id in Target.objects.exclude(secrets="").order_by("id").values_list("id", flat=True):
        with transaction.atomic():
            target = Target.objects.select_for_update().filter(id=target_id).first()
            if not (target and target.secrets):
                continue
            try:
                Target.objects.filter(id=target_id).update(secrets=reencrypt(target.secrets))
                done += 1
            except ValueError:
                unreadable.append(target.name)
    return done, unreadable
