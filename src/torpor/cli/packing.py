"""A folder as a zip archive: the same files always give the same bytes, so unchanged code is recognised as such."""

import os
import stat
import zipfile
from collections.abc import Collection, Iterator
from io import BytesIO
from pathlib import Path

from torpor.model.errors import CallerError, InvalidPackage, TooLarge

_SKIPPED = frozenset((".git", ".hg", ".svn", "__pycache__", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache"))
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_LEVEL = 6


def archive_of(path: Path, *, packed_limit: int, unpacked_limit: int, without: Collection[str] = ()) -> bytes:
    """The zip archive of a folder, but for what is in folders named `without`; or a zip file as it is.

    Raises CallerError if something cannot be read, InvalidPackage if it is no package, TooLarge (limits in bytes).
    """
    try:
        data = _zip_folder(path, unpacked_limit, _SKIPPED | set(without)) if path.is_dir() else path.read_bytes()
    except FileNotFoundError as error:
        raise CallerError(f"{error.filename or path} does not exist: name a folder or a zip archive.") from error
    except OSError as error:
        raise CallerError(f"{error.filename or path} cannot be read: {error.strerror}.") from error
    if not zipfile.is_zipfile(BytesIO(data)):
        raise InvalidPackage(f"{path} is neither a folder nor a zip archive.")
    if len(data) > packed_limit:
        raise _too_large(path, "zipped", packed_limit)
    return data


def _zip_folder(folder: Path, limit: int, skipped: Collection[str]) -> bytes:
    buffer = BytesIO()
    total = 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for path in _files(folder, skipped):
            total += path.lstat().st_size
            if total > limit:
                raise _too_large(folder, "unzipped", limit)
            archive.writestr(*_entry(folder, path))
    if not total:
        raise InvalidPackage(f"The folder {folder} holds no code.")
    return buffer.getvalue()


def _files(folder: Path, skipped: Collection[str]) -> Iterator[Path]:
    """Files and links below the folder in a fixed order; linked folders are links, not walked into."""
    for root, folders, files in os.walk(folder, onerror=_fail):
        folders[:] = sorted(name for name in folders if name not in skipped)
        links = [name for name in folders if Path(root, name).is_symlink()]
        for name in sorted([*files, *links]):
            path = Path(root, name)
            if path.is_symlink() or path.is_file():
                yield path


def _entry(folder: Path, path: Path) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _FIRST_DATE)
    info.create_system = _UNIX
    info.compress_type = zipfile.ZIP_DEFLATED
    if path.is_symlink() and _stays_within(folder, path):
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        return info, os.fsencode(os.readlink(path))
    if path.is_dir():
        raise InvalidPackage(f"{path} links to a folder outside {folder}: copy that folder in instead.")
    runs = path.stat().st_mode & stat.S_IXUSR
    info.external_attr = (stat.S_IFREG | (0o755 if runs else 0o644)) << 16
    return info, path.read_bytes()


def _stays_within(folder: Path, link: Path) -> bool:
    return not os.path.isabs(os.readlink(link)) and link.resolve().is_relative_to(folder.resolve())


def _fail(error: OSError) -> None:
    raise error


def _too_large(path: Path, what: str, limit: int) -> TooLarge:
    return TooLarge(f"{path} is larger than {limit} bytes {what}: leave out what the code does not need.", limit=limit)
