"""Where the broker is that `up` started for itself (management/broker.py), for other commands on the same machine: a file
beside the log, which only its owner can read, locked for as long as that `up` lives."""
import fcntl
import os
from contextlib import suppress

NAME = ".broker"


def note(folder, url):
    """Notes that the broker is at `url`. If another `up` has noted one, that stays.

    folder: pathlib.Path
    Returns the file descriptor that holds the lock, to be kept open; None if there is none. Raises OSError.
    """
    fd = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    os.truncate(fd, 0)
    os.write(fd, url.encode())
    return fd


def noted(folder):
    """The URL of the broker of an `up` that lives, or None."""
    with suppress(OSError):
        fd = os.open(folder / NAME, os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(fd, 1000).decode() or None
        finally:
            os.close(fd)
    return None
