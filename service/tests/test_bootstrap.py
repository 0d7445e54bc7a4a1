"""`.venv`, made by `python3 manage.py up` and by tests/run on a machine that has nothing but Python. (That this is enough for
the service: .ci/bare.)"""
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import bootstrap
import pytest
from conftest import SERVICE, free_port, until

pytestmark = pytest.mark.no_database
BASE = os.path.realpath(sys._base_executable)       # the Python of no environment
SEEN = ("import bootstrap, sys\nbootstrap.enter(make=sys.argv[1] == 'up')\nimport importlib.metadata as m\n"
        "print(sys.prefix, *sorted(f'{d.name}={d.version}' for d in m.distributions() if d.name.startswith('stand')))\n")


@pytest.fixture
def folder(work):
    return stand_in(work)


def stand_in(work):
    """A stand-in for service/, whose only requirement is a package of which there are two versions."""
    shutil.copy(SERVICE / "bootstrap.py", work)
    (work / "manage.py").write_text(SEEN)
    for version in ("1.0", "2.0"):
        name = f"standin-{version}.dist-info"
        with zipfile.ZipFile(work / f"standin-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr("standin.py", "")
            wheel.writestr(f"{name}/METADATA", f"Metadata-Version: 2.1\nName: standin\nVersion: {version}\n")
            wheel.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{name}/RECORD", "")
    (work / "requirements.txt").write_text("standin==1.0\n")
    (work / "requirements-broker.txt").write_text("not-to-be-had==1\n")
    return work


def environment_of(folder, **more):
    base = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "REDIS_URL"))}
    return {**base, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull,
            "REDIS_URL": "redis://localhost", **more}


def run(folder, *arguments, limits=(), **environment):
    """(exit status, output lines) of its manage.py, by the Python of no environment."""
    result = subprocess.run([*limits, BASE, "manage.py", *arguments], cwd=folder, capture_output=True, text=True, timeout=120,
                            env=environment_of(folder, **environment))
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


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One that is whole, with standin 1.0."""
    folder = stand_in(tmp_path_factory.mktemp("made"))
    assert run(folder, "up")[0] == 0
    return folder / ".venv"


def half_a_pip(packages):
    """It ended while pip was put there."""
    shutil.rmtree(packages / "pip" / "_vendor")
    next(packages.glob("pip-*.dist-info/INSTALLER")).unlink()


def half_a_package(packages):
    """It ended while pip wrote a package, of which pip would say that it is there already."""
    (packages / "standin.py").unlink()
    next(packages.glob("standin-*.dist-info/INSTALLER")).unlink()


def of_another_python(packages):
    """The system has a newer one in the same place, which looks for packages elsewhere."""
    packages.parent.rename(packages.parent.parent / "python3.1")


def of_no_environment(packages):
    """Without the file by which Python knows one, its Python is the system's, into which nothing is installed."""
    (packages.parents[2] / "pyvenv.cfg").unlink()


def of_another_folder(packages):
    """As the copy is that this test begins with: there is nothing to do."""


@pytest.mark.processes
@pytest.mark.parametrize("spoil", [half_a_pip, half_a_package, of_another_python, of_no_environment, of_another_folder])
def test_what_there_is_is_made_whole(folder, made, spoil):
    shutil.copytree(made, folder / ".venv", symlinks=True)
    packages = next(folder.glob(".venv/lib/*/site-packages"))
    if spoil in (half_a_pip, half_a_package):
        for done in packages.glob("scheduler-*"):
            done.unlink()
    spoil(packages)
    status, said = run(folder, "up")
    assert status == 0 and said[-1] == f"{folder}/.venv standin=1.0", said
    assert (len(said) == 1) == (spoil == of_another_folder)
    assert list(folder.glob(".venv/lib/*/site-packages/standin.py"))


@pytest.mark.processes
def test_a_command_that_lacks_packages_says_how_they_come(folder, made):
    """An update needs another, or the first start was not finished."""
    shutil.copy(SERVICE / "manage.py", folder)
    shutil.copytree(made, folder / ".venv", symlinks=True)
    status, (said,) = run(folder, "call", "now")
    assert status == 1 and "not all installed here (No module named 'django'). Run: python3 manage.py up; or" in said


@pytest.mark.processes
def test_there_is_no_room(folder):
    """Nothing larger than 64 kB can be written, for a disk that is full."""
    full = ["prlimit", "--fsize=65536"]
    status, said = run(folder, "up", limits=full)
    assert status == 1 and f"pip could not be installed in {folder}/.venv" in said[-1]
    assert any("File too large" in line for line in said[:-1]), "why"
    with zipfile.ZipFile(folder / "standin-1.0-py3-none-any.whl", "a", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("standin_large", b"0" * 100_000)
    assert run(folder, "up", PIP_FIND_LINKS="")[0] == 1, "it has pip by now"
    status, said = run(folder, "up", limits=full)
    assert status == 1 and "pip could not install them" in said[-1] and any("File too large" in line for line in said[:-1])
    assert run(folder, "up")[1][-1] == f"{folder}/.venv standin=1.0"
    assert list(folder.glob(".venv/lib/*/site-packages/standin_large"))


@pytest.fixture
def slow(folder):
    """The address of an index of packages that says when it is asked, and answers once `goes_on` is set."""
    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.set()
            self.server.goes_on.wait(60)
            name = self.path.rpartition("/")[2]
            body = (folder / name).read_bytes() if name else b'<a href="/standin-1.0-py3-none-any.whl">standin-1.0-py3-none-any.whl</a>'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/octet-stream" if name else "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.asked, server.goes_on = threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.settings = environment_of(folder, PIP_INDEX_URL=f"http://127.0.0.1:{server.server_port}/simple", PIP_NO_CACHE_DIR="1")
    del server.settings["PIP_NO_INDEX"], server.settings["PIP_FIND_LINKS"]
    yield server
    server.goes_on.set()
    server.shutdown()
    server.server_close()


def begun(folder, slow, made):
    """`up`, that far that pip has asked for the package."""
    shutil.copytree(made, folder / ".venv", symlinks=True)
    packages = next(folder.glob(".venv/lib/*/site-packages"))
    for part in [packages / "standin.py", *packages.glob("scheduler-*"), *packages.glob("standin-*/*")]:
        part.unlink()
    process = subprocess.Popen([BASE, "manage.py", "up"], cwd=folder, env=slow.settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, start_new_session=True)
    assert slow.asked.wait(60)
    return process


def in_group(process):
    return subprocess.run(["ps", "-ww", "-o", "args=", "-g", str(process.pid)], capture_output=True, text=True).stdout


@pytest.mark.processes
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_who_is_told_to_end_ends_pip_too(folder, slow, made, number, status):
    process = begun(folder, slow, made)
    process.send_signal(number)
    output = process.communicate(timeout=20)[0]
    assert process.returncode == status and "Traceback" not in output
    until(lambda: "pip" not in in_group(process))
    slow.goes_on.set()
    status, said = run(folder, "up")
    assert status == 0 and said[-1] == f"{folder}/.venv standin=1.0"


@pytest.mark.processes
def test_two_do_it_once_also_if_the_first_is_killed(folder, slow, made):
    """Its pip goes on; another beside it would spoil both."""
    first = begun(folder, slow, made)
    first.kill()
    first.wait()
    assert "pip install" in in_group(first)
    second = subprocess.Popen([BASE, "manage.py", "up"], cwd=folder, env=slow.settings, stdout=subprocess.PIPE, text=True)
    assert second.stdout.readline() == "Another start is under way in this folder; waiting for it.\n"
    slow.goes_on.set()
    assert second.communicate(timeout=60)[0].splitlines()[-1] == f"{folder}/.venv standin=1.0" and second.returncode == 0
    first.stdout.close()


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
        body = {"/simple/pip/": wheel.encode(), f"/files/{bootstrap.PIP}": b"the wheel", "/cut/pip/": b"<a"}.get(self.path)
        self.send_response(200 if body else 404)
        if self.path == "/cut/pip/":
            self.send_header("Content-Length", "1000")
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


@pytest.mark.parametrize("index_url, says", [("/none", "Not Found"), ("/cut", "IncompleteRead"), ("/simple", "is something else")])
def test_pip_that_cannot_be_had_is_asked_of_the_system(index, monkeypatch, index_url, says):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.server_port}{index_url}")
    monkeypatch.setattr(bootstrap, "runs", lambda python, code: False)
    with pytest.raises(SystemExit, match=f"could not be fetched [(].*{says}.*[)]. Install it [(]Debian: apt-get install python3-venv"):
        bootstrap.add_pip()


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
