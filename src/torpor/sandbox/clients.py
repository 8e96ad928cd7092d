"""Installing the runtime clients: what stands at `/var/runtime` for each managed interpreter of this host.

Each runtime folder is made beside its final place and renamed into it when complete, under a lock, with a stamp that
says what was installed from; so an interrupted run leaves nothing half done and a second run has nothing to do.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator

from torpor.model.errors import RuntimeMissing
from torpor.sandbox.images import DEFAULT_ROOT, PYTHON_MINORS, STAMP
from torpor.sandbox.interpreters import Interpreter, Language, choose, discover

Report = Callable[[str], None]

PIP_SECONDS = 300.0
NPM_SECONDS = 180.0

_GUEST = os.path.join(os.path.dirname(__file__), "guest")
_PYTHON_PACKAGE = "torpor_guest"
_PYTHON_TOP = ("bootstrap.py",)
_PYTHON_MODULES = ("__init__.py", "clone.py", "paths.py", "restoring.py")
_LAYOUT = 1
"""Raised when what is put into a runtime folder changes in a way the stamp's other facts do not show."""


def install_clients(runtime_root: str, interpreters: Iterable[Interpreter], report: Report) -> tuple[str, ...]:
    """Install the client of every managed interpreter that lacks it; one line of `report` each.

    A client that cannot be had is reported and left out. Returns the runtime folders that are complete now. Raises
    RuntimeMissing if the root cannot be written.
    """
    interpreters = tuple(interpreters)
    try:
        os.makedirs(runtime_root, exist_ok=True)
        with _locked(runtime_root):
            _remove_leftovers(runtime_root)
            return tuple(_install_all(runtime_root, interpreters, report))
    except OSError as error:
        raise RuntimeMissing(f"The runtime clients cannot be installed in {runtime_root}: {error}.") from error


def _install_all(root: str, interpreters: tuple[Interpreter, ...], report: Report) -> Iterator[str]:
    for minor in PYTHON_MINORS:
        python = choose(interpreters, Language.PYTHON, 3, minor)
        if python is not None and _install(root, f"python3.{minor}", _python_stamp(python), report, _Python(python)):
            yield f"python3.{minor}"
    if choose(interpreters, Language.NODE) is not None:
        npm = shutil.which("npm")
        if _install(root, "nodejs", _node_stamp(npm), report, _Node(npm, report)):
            yield "nodejs"


def _install(root: str, name: str, stamp: dict[str, object], report: Report, build: Callable[[str], str]) -> bool:
    place = os.path.join(root, name)
    if _read_stamp(place) == stamp:
        report(f"{name}: present")
        return True
    making = tempfile.mkdtemp(prefix=f".{name}-", dir=root)
    try:
        os.chmod(making, 0o755)
        problem = build(making)
        if problem:
            report(f"{name}: not installed: {problem}")
            return False
        with open(os.path.join(making, STAMP), "w", encoding="utf-8") as file:
            json.dump(stamp, file)
        _swap(making, place)
        report(f"{name}: installed")
        return True
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _swap(made: str, place: str) -> None:
    """Put the new folder in place. Environments may still run on the old one, so it stays until the next run."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(place, f"{made}.old")
    os.rename(made, place)


def _remove_leftovers(root: str) -> None:
    for entry in os.scandir(root):
        if entry.name.startswith((".python", ".nodejs")):
            shutil.rmtree(entry.path, ignore_errors=True)


@contextlib.contextmanager
def _locked(root: str) -> Iterator[None]:
    with open(os.path.join(root, ".lock"), "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Python:
    """Builds the folder of one Python version with the server's own pip."""

    def __init__(self, python: Interpreter) -> None:
        self._python = python

    def __call__(self, folder: str) -> str:
        problem = _run(_pip(self._python, folder), PIP_SECONDS)
        if problem:
            return problem
        _copy(os.path.join(_GUEST, "python"), _PYTHON_TOP, folder)
        package = os.path.join(folder, _PYTHON_PACKAGE)
        os.mkdir(package)
        _copy(os.path.join(_GUEST, "python"), _PYTHON_MODULES, package)
        return self._compile(folder) or self._check(folder)

    def _compile(self, folder: str) -> str:
        """Inside, the folder is read-only and has another name."""
        argv = [self._python.executable, "-I", "-m", "compileall", "-q", "-s", folder, "-p", "/var/runtime", folder]
        return _run(argv, PIP_SECONDS)

    def _check(self, folder: str) -> str:
        program = (
            f"import sys; sys.path.insert(0, {folder!r}); import runtime_client, simplejson, {_PYTHON_PACKAGE}.clone"
        )
        return _run([self._python.executable, "-I", "-S", "-c", program], PIP_SECONDS)


class _Node:
    """Builds the Node.js folder: our bootstrap, and the cloud's SDK where npm can bring it."""

    def __init__(self, npm: str | None, report: Report) -> None:
        self._npm = npm
        self._report = report

    def __call__(self, folder: str) -> str:
        shutil.copytree(os.path.join(_GUEST, "nodejs"), folder, dirs_exist_ok=True)
        if self._npm is None:
            self._report("nodejs: without the cloud's SDK, as there is no npm here")
            return ""
        argv = [self._npm, "install", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        bounds = ["--fetch-timeout=20000", "--fetch-retries=1"]  # milliseconds: no registry, no long wait
        problem = _run([*argv, *bounds, "--loglevel=error", "--prefix", folder], NPM_SECONDS)
        if problem:
            shutil.rmtree(os.path.join(folder, "node_modules"), ignore_errors=True)
            self._report(f"nodejs: without the cloud's SDK: {problem}")
        return ""


def _pip(python: Interpreter, folder: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-compile", "--target", folder, "--only-binary=:all:", "--implementation", "cp"),
        *("--python-version", f"{python.version[0]}.{python.version[1]}"),
        *("--requirement", _requirements()),
    ]


def _requirements() -> str:
    return os.path.join(_GUEST, "python", "requirements.txt")


def _run(argv: list[str], seconds: float) -> str:
    """Run a program quietly; its last line of complaint if it failed, else empty."""
    try:
        with tempfile.TemporaryDirectory(prefix="torpor-npm-") as cache:
            # The account's own folder may not be there to write in, and npm then tries for minutes.
            environment = {**os.environ, "npm_config_cache": cache}
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
                umask=0o022,
                env=environment,
            )
    except subprocess.TimeoutExpired:
        return f"{os.path.basename(argv[0])} took over {seconds:.0f} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [f"{os.path.basename(argv[0])} failed with status {done.returncode}"])[-1].strip()


def _copy(source: str, names: Iterable[str], folder: str) -> None:
    for name in names:
        shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))


def _python_stamp(python: Interpreter) -> dict[str, object]:
    return {"layout": _LAYOUT, "interpreter": python.version_text, "guest": _digest("python")}


def _node_stamp(npm: str | None) -> dict[str, object]:
    return {"layout": _LAYOUT, "sdk": npm is not None, "guest": _digest("nodejs")}


def _digest(guest: str) -> str:
    digest = hashlib.sha256()
    folder = os.path.join(_GUEST, guest)
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                digest.update(f"{name}\0".encode() + file.read())
    return digest.hexdigest()


def _read_stamp(place: str) -> object:
    try:
        with open(os.path.join(place, STAMP), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def main() -> int:
    """Install into the default place, or the folder given; exit status 1 if no client at all could be installed."""
    root = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_ROOT
    return 0 if install_clients(root, discover(), _tell) else 1


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
