"""What is secret and must be kept: encrypted in the database, and shown nowhere.

Fernet (cryptography's) with keys of its own, derived by HKDF (RFC 5869) from the texts in SECRETS_KEY: the first
encrypts, all can decrypt. So a key is changed by putting a new one before it; `manage.py reencrypt` then makes the
old one needless.
"""
import base64
import json
import threading
from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

REMEMBERED = 1000       # values that `met` knows at most, the latest


class Unreadable(ValueError):
    """Encrypted with a key that is none of SECRETS_KEY, or damaged."""

    def __init__(self):
        super().__init__("its secrets cannot be read: SECRETS_KEY lacks the key that they were encrypted with")


@cache
def _fernet(keys):
    def key(text):
        derived = HKDF(SHA256(), length=32, salt=None, info=b"secrets of targets").derive(text.encode())
        return Fernet(base64.urlsafe_b64encode(derived))
    return MultiFernet([key(text) for text in keys])


def encrypt(value):
    """`value`, of which json.dumps makes a text, encrypted: str, "" for an empty one."""
    return _fernet(tuple(settings.SECRETS_KEY)).encrypt(json.dumps(value).encode()).decode() if value else ""


def decrypt(text, empty=dict):
    """What was encrypted as `text`; empty() for "". Raises Unreadable."""
    if not text:
        return empty()
    try:
        value = json.loads(_fernet(tuple(settings.SECRETS_KEY)).decrypt(text.encode()))
    except (InvalidToken, ValueError):
        raise Unreadable from None
    meet(value)
    return value


def reencrypt(text):
    """`text`, encrypted with the first key. Raises Unreadable."""
    try:
        return text and _fernet(tuple(settings.SECRETS_KEY)).rotate(text.encode()).decode()
    except InvalidToken:
        raise Unreadable from None


_met = {}               # in the order in which they were last met
_meeting = threading.Lock()


def meet(value):
    """Has this process remember the texts in `value`, of JSON: what it writes of errors, on pages and in its output,
    hides them (words.hidden)."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            meet(part)
    elif isinstance(value, str) and len(value) > 5:         # shorter ones are parts of other words
        with _meeting:
            _met.pop(value, None)
            _met[value] = True
            if len(_met) > REMEMBERED:
                del _met[next(iter(_met))]


def met():
    """The texts that this process knows to be secret, but for its settings: list of str."""
    return list(_met)
