"""The servers that are measured, ready to be sent: their source with the packages it needs, taken from this Python."""

import io
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

_HERE = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z0-9._-]+")
PYTHON = f"python3.{sys.version_info.minor}"
"""As it is called inside a service: the packages are built for the version that runs this."""
BUILD = "-m compileall -q --invalidation-mode unchecked-hash ."
"""What installing a package does as well: without it a read-only folder is compiled anew at every start."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One server and the distributions it imports."""

    name: str
    title: str
    needs: tuple[str, ...]


BARE = Backend("bare", "uvloop + httptools", ("uvloop", "httptools"))
ASGI = Backend("asgi", "FastAPI, uvicorn", ("fastapi", "uvicorn", "uvloop", "httptools"))


@contextmanager
def staged(backend: Backend) -> Iterator[Path]:
    """A folder with the server and what it imports, while it is wanted. LookupError if a package is missing."""
    with tempfile.TemporaryDirectory(prefix="torpor-bench-") as name:
        folder = Path(name)
        shutil.copyfile(_HERE / backend.name / "server.py", folder / "server.py")
        found: dict[str, Distribution] = {}
        for needed in backend.needs:
            _collect(needed, found)
        for one in found.values():
            _copy(one, folder)
        yield folder


def archived(folder: Path) -> bytes:
    """All files of a folder as a zip archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                file.write(path, path.relative_to(folder))
    return archive.getvalue()


def _collect(name: str, found: dict[str, Distribution]) -> None:
    """A distribution and those it needs in any case."""
    if name.lower() in found:
        return
    try:
        one = found[name.lower()] = distribution(name)
    except PackageNotFoundError as error:
        raise LookupError(f"{name} is not installed (pip install {name})") from error
    for text in one.requires or ():
        wanted = _NAME.match(text)
        if wanted and ";" not in text:
            _collect(wanted[0], found)


def _copy(one: Distribution, folder: Path) -> None:
    for file in one.files or ():
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(str(one.locate_file(file))), target)
