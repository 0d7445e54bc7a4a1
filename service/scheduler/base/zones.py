"""Which time zone data this process goes by: the machine's own or the package tzdata, which requirements.txt
pins, whichever is the newer. So no machine plans by data that are older than the pinned ones, whether it has
files of its own or not. Where PYTHONTZPATH is set, the files there are meant, and no others.
"""
import os
import re
import zoneinfo
from functools import cache
from pathlib import Path

import tzdata
from django.utils import timezone

PACKAGE = Path(tzdata.__file__).parent / "zoneinfo"
OWN = zoneinfo.TZPATH       # the folders in which this machine may have its own

_release = _words = ""


def release():
    """Of which release the data are that `choose` took, such as "2026f", or "" if they do not say it. That of
    later data is a greater str."""
    return _release


def words():
    """A sentence that says which data `choose` took, or "" if there was no choice."""
    return _words


def choose():
    """Chooses, and forgets every zone that was read before: what was installed meanwhile holds from now on."""
    global _release, _words
    own = next((folder for folder in OWN if os.path.isdir(folder)), None)
    theirs, packaged = own and _release_of(own) or "", _release_of(PACKAGE)
    wanted = "PYTHONTZPATH" in os.environ
    use_own = own and (wanted or theirs >= packaged)
    zoneinfo.reset_tzpath(to=OWN if use_own else ())        # where there are none Python takes the package's
    zoneinfo.ZoneInfo.clear_cache()
    timezone.get_default_timezone.cache_clear()
    names.cache_clear()
    _release, _words = theirs if use_own else packaged, ""
    if own and theirs != packaged:
        used, other = f"{own} ({theirs or 'of an unknown release'})", f"the package tzdata ({packaged})"
        if not use_own:
            used, other = other, used
        why = f"as PYTHONTZPATH says, and not those of {other}" if wanted else f"newer than those of {other}"
        _words = f"the time zone data are those of {used}, {why}"


def _release_of(folder):
    for name, pattern in ("tzdata.zi", "# version (.+)"), ("+VERSION", "(.+)"):     # the latter on macOS
        try:
            with open(Path(folder) / name, encoding="ascii", errors="replace") as file:
                if match := re.match(pattern, file.readline(100)):
                    return match[1].strip()
        except OSError:
            pass
    return ""


@cache
def names():
    """The names of all zones: frozenset of str."""
    # Not every file beside the zones is one: what the machine's own zone is, differs between machines.
    return frozenset(zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"})
