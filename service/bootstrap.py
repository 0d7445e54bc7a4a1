"""The virtual environment `.venv` beside this file, for a machine that has Python and nothing else: made, filled and used
by `python3 manage.py up` and `python3 tests/run`. Who works in an environment of their own, or has the packages in
their system, is left alone.

Only the standard library, and words that an old Python can read.
"""
import hashlib
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from configparser import ConfigParser, Error
from contextlib import contextmanager
from http.client import HTTPException

HERE = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(HERE, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
REQUIREMENTS = "requirements.txt"
BROKER = "requirements-broker.txt"      # not for production: see management/broker.py
# For a Python without ensurepip, as Debian's is: the installer, known by what it holds, wherever it comes from.
PIP = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"


def old(version):
    """What to say to who runs this by a Python that is too old. version: sys.version_info"""
    return ("Python 3.11 or newer is needed, and this is {}.{}. Use another, such as python3.11 {}; a virtual "
            "environment of your own is made anew by python3.11 -m venv --clear.".format(*version[:2], " ".join(sys.argv)))


def in_venv():
    """Whether this Python is one of a virtual environment."""
    return sys.prefix != sys.base_prefix


def installed():
    """Whether all of requirements.txt is there for this Python, in the versions named."""
    from importlib.metadata import PackageNotFoundError, version
    for line in open(os.path.join(HERE, REQUIREMENTS), encoding="utf-8"):
        pinned = re.match(r"([\w.-]+)(?:\[[\w,]+\])?==(\S+)", line)
        try:
            if pinned and version(pinned.group(1)) != pinned.group(2):
                return False
        except PackageNotFoundError:
            return False
    return True


def enter(make=False):
    """Goes on as the Python of `.venv`, if that is there and this one is of no environment and lacks packages; else
    returns.

    make: whether `.venv` is made if it is not there, and given what it lacks
    """
    if in_venv() or installed():
        return
    if make:
        fill(REQUIREMENTS)
        if wants_broker():
            fill(BROKER, needed=False)
    elif not packages_folder():
        return
    go_on()


def go_on():
    """As the Python of `.venv`, with the same arguments."""
    sys.stdout.flush()
    os.execv(PYTHON, [PYTHON] + sys.argv)


def wants_broker():
    """Whether `up` may need a broker that is in a package."""
    return "REDIS_URL" not in os.environ and not (shutil.which("redis-server") or shutil.which("valkey-server"))


def packages_folder():
    """Where the packages of `.venv` are, of the Python that is there now: a system that gets a newer one has it look
    elsewhere. None if there is none, or no Python that runs, is new enough, and is of this environment."""
    code = ("import sys, sysconfig; sys.exit(1) if sys.version_info < (3, 11) or sys.prefix == sys.base_prefix "
            "else print(sysconfig.get_path('purelib'))")
    try:
        folder = os.fsdecode(subprocess.check_output([PYTHON, "-c", code], stderr=subprocess.DEVNULL)).rstrip("\n")
    except (OSError, subprocess.CalledProcessError):
        return None
    return folder if os.path.isdir(folder) else None


def runs(python, code):
    return subprocess.call([python, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


@contextmanager
def alone(word=""):
    """Who comes here meanwhile in this folder waits, also for what was started here and outlives a `kill -9` of who started it.

    word: what is said to who waits
    """
    import fcntl
    folder = os.open(HERE, os.O_RDONLY)
    try:
        os.set_inheritable(folder, True)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if word:
                print(word, flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            pass                # a file system without locks
        yield
    finally:
        os.close(folder)


def run(*command, **how):
    """Its exit status. It inherits the lock of `alone`."""
    return subprocess.call(command, close_fds=False, **how)


def stop(number, frame):
    sys.exit(128 + number)


def fill(*files, **how):
    """Makes `.venv` if need be, and installs these files of requirements there, unless that was done before. What a
    signal, a full disk or a lost network left half done, the next time completes.

    files: their paths below this folder
    needed: keyword, whether the process ends with a message if that cannot be done (True)
    """
    needed = how.get("needed", True)
    # Whoever is told to end ends what it started. (A signal that is ignored, as under nohup, stays so.)
    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        with alone("Another start is under way in this folder; waiting for it."):
            install(files, needed)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if needed:
            sys.exit("{} cannot be made: {}. An environment of your own will do as well, see README.md.".format(VENV, error))
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def install(files, needed):
    """See `fill`. Raises OSError."""
    if not packages_folder():
        make()
    folder = packages_folder()
    # A copy of each file in there says that it was installed as it stands.
    copies = {name: os.path.join(folder, "scheduler-" + name.replace("/", "-")) for name in files}
    missing = [name for name in files if text_of(copies[name]) != text_of(os.path.join(HERE, name))]
    if not missing:
        return
    forget_halves(folder)
    if not runs(PYTHON, "import pip, importlib.metadata as m; m.version('pip')"):
        add_pip()
    print("Installing the packages of {} in {}, once.".format(" and ".join(missing), VENV), flush=True)
    arguments = [word for name in missing for word in ("-r", os.path.join(HERE, name))]
    quiet = {} if needed else {"stderr": subprocess.DEVNULL}
    if run(PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", *arguments,
           env=dict(os.environ, PIP_USER="0"), **quiet) != 0:      # there is no user's folder in an environment
        if needed:
            sys.exit("pip could not install them; its lines above say why. (If it found no version of a package at all, the "
                     "index of packages could not be read: is there a network, is there a proxy to be named by https_proxy, "
                     "or another index by PIP_INDEX_URL?) What there is of {} stays, and the same command tries again.".format(VENV))
        return
    for name in missing:
        with open(copies[name], "w", encoding="utf-8") as copy:
            copy.write(text_of(os.path.join(HERE, name)))


def forget_halves(folder):
    """What pip was writing when it was killed or the disk was full is no installed package, though pip would take it for
    one: it goes by METADATA, and writes INSTALLER when all the rest is there."""
    for name in os.listdir(folder):
        if name.endswith(".dist-info") and not os.path.exists(os.path.join(folder, name, "INSTALLER")):
            shutil.rmtree(os.path.join(folder, name))


def text_of(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return None


def make():
    """Makes `.venv`, without pip."""
    print("Making the virtual environment {}.".format(VENV), flush=True)
    if run(sys.executable, "-m", "venv", "--clear", "--without-pip", VENV) != 0:
        if not runs(sys.executable, "import venv"):
            sys.exit("This Python makes no virtual environments. Install what it lacks (Debian: apt-get install python3-venv).")
        sys.exit("{} cannot be made; the lines above say why. An environment of your own will do as well, see README.md.".format(VENV))


def add_pip():
    """Puts pip into `.venv`: this Python's own, or fetched."""
    if runs(sys.executable, "import ensurepip"):
        # The module venv would do the same, and keep to itself what is said when it fails.
        done = run(PYTHON, "-I", "-m", "ensurepip", "--default-pip", stdout=subprocess.DEVNULL) == 0
    else:
        try:
            data = fetch_pip()
        except (OSError, ValueError, HTTPException) as error:
            sys.exit("This Python has no pip, and it could not be fetched ({}). Install it (Debian: apt-get install "
                     "python3-venv), and try again.".format(getattr(error, "reason", None) or error or repr(error)))
        wheel = os.path.join(VENV, PIP)
        with open(wheel, "wb") as file:
            file.write(data)
        # A wheel of pip is a program as well: it installs itself.
        done = run(PYTHON, os.path.join(wheel, "pip"), "install", "--quiet", "--no-index", "--no-deps",
                   "--disable-pip-version-check", wheel) == 0
        os.remove(wheel)
    if not done:
        sys.exit("pip could not be installed in {}; the lines above say why.".format(VENV))


def pip_setting(name):
    """What pip would go by: of the environment, else of its files, the later before the earlier. None if none says."""
    if os.environ.get("PIP_" + name.upper().replace("-", "_")):
        return os.environ["PIP_" + name.upper().replace("-", "_")]
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    system = [os.path.join(folder, "pip/pip.conf") for folder in
              (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")]
    files = system + ["/etc/pip.conf", os.path.expanduser("~/.pip/pip.conf"), os.path.join(config, "pip/pip.conf"),
                      os.environ.get("PIP_CONFIG_FILE", "")]
    found = None
    for file in files:
        parser = ConfigParser(interpolation=None)
        try:
            parser.read(file)
        except (Error, OSError, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            found = parser.get(section, name, fallback=None) or found
    return found


def fetch_pip():
    """The bytes of PIP, from the index that pip would ask. Raises OSError, ValueError and HTTPException."""
    from urllib.parse import urljoin
    page_url = (pip_setting("index-url") or "https://pypi.org/simple").rstrip("/") + "/pip/"
    page = fetch(page_url).decode("utf-8", "replace")
    link = re.search(r"""href=["']?([^"'>\s#]*/?""" + re.escape(PIP) + ")", page)
    if not link:
        raise ValueError("the index of packages has no " + PIP)
    data = fetch(urljoin(page_url, link.group(1)))
    if hashlib.sha256(data).hexdigest() != PIP_SHA256:
        raise ValueError("what the index has as " + PIP + " is something else")
    return data


def fetch(url):
    """The bytes at `url`. A machine without certificates can check none: as what comes is known by its hash, and nothing
    secret is sent, it is taken all the same."""
    from base64 import b64encode
    from urllib.error import URLError
    from urllib.parse import unquote, urlsplit, urlunsplit
    from urllib.request import Request, urlopen
    parts = urlsplit(url)
    headers = {"Accept": "text/html, */*"}
    if parts.username:
        pair = "{}:{}".format(unquote(parts.username), unquote(parts.password or ""))
        headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    request = Request(urlunsplit(parts), headers=headers)
    try:
        with urlopen(request, timeout=60, context=ssl.create_default_context(cafile=pip_setting("cert"))) as answer:
            return answer.read()
    except URLError as error:
        if parts.scheme != "https" or "Authorization" in headers or not isinstance(error.reason, ssl.SSLError):
            raise
    with urlopen(request, timeout=60, context=ssl._create_unverified_context()) as answer:
        return answer.read()
