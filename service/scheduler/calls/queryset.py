"""Lists of calls by their status, as quick among a million calls as among none.

There is an index in order of time for each status but Running, and one for each status of each target (models.py). Neither
database reads several of them side by side by itself: asked for `status IN (...)` in order of time, both
read the calls of all statuses in that order and drop the others, which takes long where few fit. So a slice
is a UNION ALL of one query for each status, and each target, of which neither reads more than the slice needs.
"""
from itertools import product

from django.db import connections
from django.db.models import QuerySet

UNDER_WAY = ("Running",)


class Calls(QuerySet):
    """Calls, with `of` for those of some statuses, and `for_targets` for those of some targets."""

    _statuses = ()
    _targets = ()

    def of(self, statuses):
        """Those of the list `statuses`. Ordered and sliced it is quick; what else is asked of it works
        as after `filter`."""
        calls = self.filter(status__in=statuses)
        calls._statuses = tuple(dict.fromkeys(statuses))
        return calls

    def for_targets(self, ids):
        """The same for those of the targets of the list `ids`, of whatever statuses are asked for beside."""
        calls = self.filter(target__in=ids)
        calls._targets = tuple(dict.fromkeys(ids))
        return calls

    @property
    def statuses(self):
        """Those of `of`, a tuple, which is empty for all."""
        return self._statuses

    def plain(self):
        """The same calls, of which a slice is read as any other queryset's: for those that are found by their ids."""
        calls = self.all()
        calls._statuses = calls._targets = ()
        return calls

    def _clone(self):
        clone = super()._clone()
        clone._statuses, clone._targets = self._statuses, self._targets
        return clone

    def __getitem__(self, key):
        # A union of what is empty would be its first part, which is sliced already.
        if ((self._statuses or self._targets) and isinstance(key, slice) and self._result_cache is None
                and not self.query.is_empty()):
            order = self.query.order_by
            parts = [self._part(status, *target) for status, *target in product(
                self._statuses or self.model.Status.values, *([self._targets] if self._targets else []))]
            if len(parts) == 1:
                return parts[0].order_by(*order)[key]
            if connections[self.db].features.supports_slicing_ordering_in_compound:
                # PostgreSQL would read them all and sort; SQLite, which knows no such parts, stops by itself.
                parts = [part.order_by(*order)[:key.stop] for part in parts]
            return parts[0].union(*parts[1:], all=True).order_by(*order)[key]
        if (isinstance(key, slice) and self._result_cache is None and self._fields is None
                and self.query.order_by[:1] in (("id",), ("-id",)) and not (self.query.select_for_update or self.query.combinator)):
            # By id among those of some days all of these have to be sorted: their ids, which an index has, and not the
            # whole rows.
            return self.filter(pk__in=super().values("pk")[key])
        return super().__getitem__(key)

    def _part(self, status, target=None):
        part = self.order_by().filter(status=status)
        if target is not None:
            part = part.filter(target=target)
        elif status in UNDER_WAY:
            # Few, and in no index in order of time: that would cost each call two more writes. Asked for
            # plainly, both databases would rather read all calls in that order than sort these.
            under_way = self.model.objects.filter(status=status).order_by()
            part = self.order_by().filter(id__in=under_way.values("id"))
        part._statuses = part._targets = ()
        return part
