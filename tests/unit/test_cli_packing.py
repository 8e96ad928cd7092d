"""A folder as an archive: the same bytes for the same files, nothing that does not belong, no limit passed."""

import os
import stat
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from torpor.cli.packing import archive_of
from torpor.model.errors import CallerError, InvalidPackage, TooLarge

PLENTY = 10_000_000


def _pack(path: Path, *, packed: int = PLENTY, unpacked: int = PLENTY) -> bytes:
    return archive_of(path, packed_limit=packed, unpacked_limit=unpacked)


def _entries(archive: bytes) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(BytesIO(archive)) as package:
        return {entry.filename: entry for entry in package.infolist()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "lib").mkdir(parents=True)
    (folder / "app.py").write_text("x = 1\n")
    (folder / "lib" / "b.py").write_text("y = 2\n")
    return folder


def test_same_files_give_the_same_bytes_whatever_their_times(folder: Path) -> None:
    before = _pack(folder)
    os.utime(folder / "app.py", (1, 1))

    assert _pack(folder) == before


def test_folders_of_tools_are_left_out(folder: Path) -> None:
    for name in (".git", "__pycache__", ".venv"):
        (folder / name).mkdir()
        (folder / name / "x").write_text("x")

    assert list(_entries(_pack(folder))) == ["app.py", "lib/b.py"]


def test_executable_files_stay_executable_and_others_do_not_become_so(folder: Path) -> None:
    (folder / "bootstrap").write_text("#!/bin/sh\n")
    (folder / "bootstrap").chmod(0o700)
    (folder / "app.py").chmod(0o600)

    modes = {name: stat.S_IMODE(entry.external_attr >> 16) for name, entry in _entries(_pack(folder)).items()}

    assert modes == {"app.py": 0o644, "bootstrap": 0o755, "lib/b.py": 0o644}


def test_link_within_the_folder_stays_a_link_and_one_outside_becomes_its_content(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "inner").symlink_to("lib/b.py")
    (folder / "outer").symlink_to(tmp_path / "outside.txt")

    archive = _pack(folder)

    with zipfile.ZipFile(BytesIO(archive)) as package:
        assert stat.S_ISLNK(package.getinfo("inner").external_attr >> 16)
        assert package.read("inner") == b"lib/b.py"
        assert stat.S_ISREG(package.getinfo("outer").external_attr >> 16)
        assert package.read("outer") == b"outside"


def test_link_to_a_folder_outside_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "outer").symlink_to(tmp_path)

    with pytest.raises(InvalidPackage, match="copy that folder in"):
        _pack(folder)


def test_folder_over_the_unpacked_limit_is_refused(folder: Path) -> None:
    with pytest.raises(TooLarge, match="11 bytes unzipped"):
        _pack(folder, unpacked=11)


def test_archive_over_the_packed_limit_is_refused(folder: Path) -> None:
    with pytest.raises(TooLarge, match="100 bytes zipped"):
        _pack(folder, packed=100)


def test_zip_file_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "code.zip"
    archive.write_bytes(_pack(folder))

    assert _pack(archive) == archive.read_bytes()


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match="holds no code"):
        _pack(tmp_path)


def test_file_that_is_no_archive_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidPackage, match="neither a folder nor a zip"):
        _pack(folder / "app.py")


def test_missing_path_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="nowhere does not exist"):
        _pack(tmp_path / "nowhere")
