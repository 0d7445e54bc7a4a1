"""`.venv`, made by `python3 manage.py up` and by tests/run on a machine that has nothing but Python. (That this is enough for
the service: .ci/bare.)"""
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import bootstrap
import pytest
from conftest import SERVICE, free_port

pytestmark = pytest.mark.no_database
BASE = os.path.realpath(sys._base_executable)       # the Python of no environment
SEEN = ("import bootstrap, sys\nbootstrap.enter(make=sys.argv[1] == 'up')\nimport importlib.metadata as m\n"
        "print(sys.prefix, *sorted(f'{d.name}={d.version}' for d in m.distributions() if d.name.startswith('stand')))\n")


@pytest.fixture
def folder(work):
    """A stand-in for service/, whose only requirement is a package of which there are two versions."""
    shutil.copy(SERVICE / "bootstrap.py", work)
    (work / "manage.py").write_text(SEEN)
    for version in ("1.0", "2.0"):
        name = f"standin-{version}.dist-info"
        with zipfile.ZipFile(work / f"standin-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/METADATA", f"Metadata-Version: 2.1\nName: standin\nVersion: {version}\n")
            wheel.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{name}/RECORD", "")
    (work / "requirements.txt").write_text("standin==1.0\n")
    (work / "requirements-broker.txt").write_text("not-to-be-had==1\n")
    return work


def run(folder, *arguments, **environment):
    """(exit status, output lines) of its manage.py, by the Python of no environment."""
    base = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "REDIS_URL"))}
    result = subprocess.run([BASE, "manage.py", *arguments], cwd=folder, capture_output=True, text=True, timeout=120,
                            env={**base, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull,
                                 "REDIS_URL": "redis://localhost", **environment})
    return result.returncode, (result.stdout + result.stderr).splitlines()


@pytest.mark.processes
def test_it_is_made_once_and_used_from_then_on(folder):
    venv = f"{folder}/.venv"
    status, (system,) = run(folder, "call")
    assert status == 0 and not system.startswith(venv), "only `up` makes it"
    status, said = run(folder, "up")
    assert status == 0 and len(said) == 3 and "requirements.txt" in said[1] and "once" in said[1]
    assert said[2] == f"{venv} standin=1.0"
    assert run(folder, "up") == run(folder, "call") == (0, [said[2]]), "nothing more to be done, and nothing said"

    (folder / "requirements.txt").write_text("standin==2.0\n")
    assert run(folder, "call") == (0, [said[2]]), "only `up` installs"
    status, said = run(folder, "up")
    assert status == 0 and len(said) == 2 and said[1] == f"{venv} standin=2.0"

    (folder / "requirements.txt").write_text("standin==3.0\n")
    for _ in range(2):
        status, said = run(folder, "up")
        assert status == 1 and "No matching distribution found for standin==3.0" in "\n".join(said)
        assert "pip could not install them" in said[-1], "and it is tried again"

    (folder / "requirements.txt").write_text("standin==2.0\n")
    os.remove(f"{venv}/bin/python")
    status, said = run(folder, "up", PATH="/usr/bin:/bin")
    assert status == 0 and said[-1] == f"{venv} standin=2.0", "a Python that is gone: it is made anew"


@pytest.mark.processes
def test_the_broker_s_package_may_be_missing(folder):
    status, said = run(folder, "up", REDIS_URL="", PATH=str(folder))
    assert not any("requirements-broker" in line for line in said), "REDIS_URL says where one is"
    base = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "REDIS_URL"))}
    result = subprocess.run([BASE, "manage.py", "up"], cwd=folder, capture_output=True, text=True, timeout=120,
                            env={**base, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PATH": str(folder)})
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == f"{folder}/.venv standin=1.0", result.stderr
    assert "requirements-broker.txt" in result.stdout and not result.stderr


@pytest.mark.processes
def test_a_folder_that_nobody_may_write(folder):
    (folder / ".venv").write_text("not a folder")
    status, said = run(folder, "up")
    assert status == 1 and not any("Traceback" in line for line in said)
    assert said[-1].startswith(f"{folder}/.venv cannot be made; the lines above say why.")


@pytest.mark.processes
def test_one_that_was_half_made_is_completed(folder):
    """Ctrl-C came before pip was in it, or between that and the packages."""
    subprocess.run([BASE, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    mine = folder / ".venv" / "mine"
    mine.write_text("")
    status, said = run(folder, "up")
    assert status == 0 and said[-1] == f"{folder}/.venv standin=1.0" and mine.exists()


def test_who_has_the_packages_is_left_alone(monkeypatch):
    monkeypatch.setattr(bootstrap, "fill", lambda *_, **__: pytest.fail("it was made"))
    monkeypatch.setattr(bootstrap, "go_on", lambda: pytest.fail("it was entered"))
    assert bootstrap.installed()
    for in_venv in (True, False):
        monkeypatch.setattr(bootstrap, "in_venv", lambda: in_venv)
        bootstrap.enter(make=True)


class Index(BaseHTTPRequestHandler):
    """An index of packages that asks for a password."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Authorization"]))
        wheel = f'<a href="../../files/{bootstrap.PIP}#sha256=00">{bootstrap.PIP}</a>'
        body = {"/simple/pip/": wheel.encode(), f"/files/{bootstrap.PIP}": b"the wheel"}.get(self.path)
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def index(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://ann:p%40ss@127.0.0.1:{server.server_port}/simple/")
    yield server
    server.shutdown()
    server.server_close()


def test_pip_comes_from_the_index_that_pip_asks_and_is_known_by_its_hash(index, monkeypatch):
    with pytest.raises(ValueError, match="is something else"):
        bootstrap.fetch_pip()
    monkeypatch.setattr(bootstrap, "PIP_SHA256", hashlib.sha256(b"the wheel").hexdigest())
    assert bootstrap.fetch_pip() == b"the wheel"
    assert index.asked[0] == ("/simple/pip/", "Basic YW5uOnBAc3M=") and index.asked[1][0] == f"/files/{bootstrap.PIP}"
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.server_port}/none")
    with pytest.raises(OSError, match="404"):
        bootstrap.fetch_pip()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/simple")
    with pytest.raises(OSError, match="refused"):
        bootstrap.fetch_pip()


def test_pip_s_files_are_read_as_pip_reads_them(monkeypatch, work):
    for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(work))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(work / "none"))
    (work / "pip").mkdir()
    (work / "pip" / "pip.conf").write_text("[global]\nindex-url = https://one.example/simple\n[install]\nno-color = 1\n")
    assert bootstrap.pip_setting("index-url") == "https://one.example/simple"
    (work / "more.conf").write_text("[install]\nindex-url = https://two.example/%7Esimple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(work / "more.conf"))
    assert bootstrap.pip_setting("index-url") == "https://two.example/%7Esimple"
    (work / "more.conf").write_text("no ini file")
    assert bootstrap.pip_setting("index-url") == "https://one.example/simple"
