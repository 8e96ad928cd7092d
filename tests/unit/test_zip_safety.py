"""Hostile and broken archives against the unpacking: each is refused with its reason, or unpacks inside its folder."""

import io
import os
import stat
import struct
import warnings
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torpor.model.errors import InvalidPackage, TooLarge
from torpor.store import links, package
from torpor.store.unpacking import unpack

LIMIT = 1_000_000
UNIX, DOS, MACOS = 3, 0, 19


def entry(name: str, content: bytes | str = b"1", mode: int = 0, system: int = UNIX) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.create_system, info.external_attr = system, mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info, content.encode() if isinstance(content, str) else content


def link(name: str, target: str | bytes) -> tuple[zipfile.ZipInfo, bytes]:
    return entry(name, target, stat.S_IFLNK | 0o777)


def archive(*entries: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name")
        for info, content in entries:
            made.writestr(info, content, info.compress_type)
    return buffer.getvalue()


BOMB = archive(entry("bomb", b"1"))


def plain(*names: str) -> bytes:
    return archive(*(entry(name) for name in names))


def refuse(content: bytes, root: Path, match: str, limit: int = LIMIT) -> None:
    root.mkdir(exist_ok=True)
    with pytest.raises(InvalidPackage, match=match):
        unpack(content, str(root), limit=limit)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../out", "leads out"),
        ("a/../../out", "leads out"),
        ("a/../b", "leads out"),
        ("..", "leads out"),
        ("/etc/passwd", "absolute"),
        ("//host/share", "absolute"),
        ("C:/windows", "absolute"),
        ("c:out", "absolute"),
        ("..\\out", "backslash"),
        ("a\\b", "backslash"),
        (".", "name of a directory"),
        ("x" * 256, "too long"),
        ("é" * 128, "too long"),
        ("/".join(["a"] * 129), "too deep"),
        ("/".join(["a" * 250] * 9), "too long"),
    ],
)
def test_unsafe_name_is_refused_and_nothing_written(tmp_path: Path, name: str, reason: str) -> None:
    root = tmp_path / "root"
    refuse(archive(entry("good.py"), entry(name)), root, reason)
    assert list(tmp_path.rglob("*")) == [root]


def test_nul_in_a_name_is_refused(tmp_path: Path) -> None:
    refuse(plain("app.py@.txt").replace(b"app.py@.txt", b"app.py\0.txt"), tmp_path, "NUL|zip archive")


def test_empty_name_is_refused(tmp_path: Path) -> None:
    refuse(archive(entry("a.py"), entry("")), tmp_path, "empty or absolute")


def test_name_that_is_not_the_utf8_it_claims_is_refused(tmp_path: Path) -> None:
    refuse(plain("é.py").replace("é".encode(), b"\xff\xfe"), tmp_path, "not a readable zip")


def test_longest_name_within_the_bounds_is_unpacked(tmp_path: Path) -> None:
    name = "/".join(["a"] * 127 + ["b" * 255])
    unpack(plain(name), str(tmp_path), limit=LIMIT)
    assert (tmp_path / name).is_file()


def test_dots_and_doubled_slashes_in_names_are_dropped(tmp_path: Path) -> None:
    unpack(archive(entry("./a//b.py"), entry("./", b"", stat.S_IFDIR | 0o700)), str(tmp_path), limit=LIMIT)
    assert (tmp_path / "a" / "b.py").is_file()


def test_utf8_name_without_its_flag_is_read_as_utf8(tmp_path: Path) -> None:
    content = bytearray(plain("é.py"))
    central = content.rindex(b"PK\x01\x02")
    for offset in (6, central + 8):
        content[offset + 1] &= 0xFF ^ 0x08
    unpack(bytes(content), str(tmp_path), limit=LIMIT)
    assert os.listdir(tmp_path) == ["é.py"]


@pytest.mark.parametrize(
    ("system", "mode", "expected"),
    [
        (UNIX, 0o100644, 0o644),
        (UNIX, 0o100755, 0o755),
        (UNIX, 0o100700, 0o755),
        (UNIX, 0o100001, 0o755),
        (UNIX, 0o106777, 0o755),
        (UNIX, 0o100000, 0o644),
        (UNIX, 0o000755, 0o755),
        (UNIX, 0, 0o644),
        (MACOS, 0o100755, 0o755),
        (DOS, 0o100755, 0o644),
        (DOS, stat.S_IFLNK | 0o777, 0o644),
    ],
)
def test_mode_is_executable_only_if_a_unix_archive_says_so(
    tmp_path: Path, system: int, mode: int, expected: int
) -> None:
    unpack(archive(entry("bootstrap", b"/etc/passwd", mode, system)), str(tmp_path), limit=LIMIT)
    found = (tmp_path / "bootstrap").lstat().st_mode
    assert stat.S_ISREG(found) and stat.S_IMODE(found) == expected


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR, 0o030000])
def test_special_file_is_refused(tmp_path: Path, kind: int) -> None:
    refuse(archive(entry("special", b"", kind | 0o644)), tmp_path, "device, pipe or socket")


@pytest.mark.parametrize(
    "names",
    [("a.py", "a.py"), ("a.py", "./a.py"), ("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b")],
)
def test_name_used_twice_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = tmp_path / "root"
    refuse(archive(*(entry(name) for name in names)), root, "twice|both as a directory")
    assert list(root.iterdir()) == []


def test_directory_listed_twice_is_one_directory(tmp_path: Path) -> None:
    unpack(archive(entry("d/", b""), entry("d/f"), entry("d/", b"")), str(tmp_path), limit=LIMIT)
    assert (tmp_path / "d" / "f").is_file()


@pytest.mark.parametrize("bad", [entry("d/", b"content"), entry("d", b"content", stat.S_IFDIR | 0o755)])
def test_directory_with_content_is_refused(tmp_path: Path, bad: tuple[zipfile.ZipInfo, bytes]) -> None:
    refuse(archive(entry("f"), bad), tmp_path, "directory with content")


@pytest.mark.parametrize(
    ("links_made", "reason"),
    [
        ({"l": "/etc/passwd"}, "absolute"),
        ({"l": ".."}, "leads out"),
        ({"d/l": "../../etc"}, "leads out"),
        ({"d/l": "x/../../../etc"}, "leads out"),
        ({"p/q/up": "../..", "out": "p/q/up/.."}, "leads out"),
        ({"a": "b", "b": "a"}, "in a circle"),
        ({"l": "l"}, "in a circle"),
        ({"l": ""}, "empty"),
        ({"l": "a\0b"}, "NUL"),
        ({"l": "x" * 2000}, "too long"),
        ({"d": "other", "d/f": "x"}, "both as a directory"),
    ],
)
def test_unsafe_link_is_refused_and_nothing_written(tmp_path: Path, links_made: dict[str, str], reason: str) -> None:
    root = tmp_path / "root"
    refuse(archive(entry("app.py"), *(link(name, target) for name, target in links_made.items())), root, reason)
    assert list(root.iterdir()) == []


def test_link_target_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    refuse(archive(entry("f"), link("l", b"\xff")), tmp_path, "not UTF-8")


def test_file_below_a_link_is_refused(tmp_path: Path) -> None:
    refuse(archive(link("d", "."), entry("d/f")), tmp_path, "both as a directory")


def test_link_inside_the_package_is_kept(tmp_path: Path) -> None:
    made = {"lib/so": "so.1", "lib/so.1": "../real/so.1.2", "dangling": "nothing/here", "node/up": "../lib/.././node"}
    unpack(archive(entry("real/so.1.2"), *(link(name, to) for name, to in made.items())), str(tmp_path), limit=LIMIT)
    assert {name: os.readlink(tmp_path / name) for name in made} == made
    assert (tmp_path / "lib" / "so").read_bytes() == b"1"


def test_links_that_take_too_many_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "STEPS_MAX", 100)
    links.check({f"l{n}": "a/b/c/d" for n in range(25)})
    with pytest.raises(InvalidPackage, match="too many"):
        links.check({f"l{n}": "a/b/c/d" for n in range(26)})


@pytest.mark.parametrize("files", [1, 3])
def test_bytes_written_are_counted_over_all_files(tmp_path: Path, files: int) -> None:
    content = archive(*(entry(f"f{n}", b"1" * (300 // files)) for n in range(files)))
    with pytest.raises(TooLarge) as caught:
        unpack(content, str(tmp_path), limit=299)
    assert (caught.value.what, caught.value.limit) == ("unpacked", 299)


def test_archive_that_says_itself_it_is_too_large_is_not_unpacked_at_all(tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        unpack(archive(entry("a", b"1" * 100), entry("b", b"1" * 200)), str(tmp_path), limit=299)
    assert list(tmp_path.iterdir()) == []


def test_reader_that_yields_more_than_stated_is_stopped_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_arguments: io.BytesIO(b"1" * 5_000_000))
    with pytest.raises(TooLarge):
        unpack(BOMB, str(tmp_path), limit=2_000_000)
    assert (tmp_path / "bomb").stat().st_size <= 2_000_000


def test_bomb_that_understates_its_size_is_stopped(tmp_path: Path) -> None:
    content = bytearray(archive(entry("bomb", b"\0" * 50_000_000)))
    central = content.rindex(b"PK\x01\x02")
    struct.pack_into("<L", content, central + 24, 10)
    refuse(bytes(content), tmp_path, "not a readable zip")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10


def test_bomb_whose_short_part_has_the_right_checksum_writes_only_what_is_stated(tmp_path: Path) -> None:
    content = bytearray(archive(entry("bomb", b"\0" * 50_000_000)))
    central = content.rindex(b"PK\x01\x02")
    struct.pack_into("<L", content, central + 24, 10)
    struct.pack_into("<L", content, central + 16, zlib.crc32(b"\0" * 10))
    assert unpack(bytes(content), str(tmp_path), limit=10) == 10
    assert (tmp_path / "bomb").stat().st_size == 10


def test_entry_shorter_than_stated_is_refused(tmp_path: Path) -> None:
    content = bytearray(archive(entry("f", b"short")))
    struct.pack_into("<L", content, content.rindex(b"PK\x01\x02") + 24, 50)
    refuse(bytes(content), tmp_path, "not as long|not a readable zip")


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    single = archive(entry("kernel", b"\0" * 10_000))
    central = single.rindex(b"PK\x01\x02")
    end = single.rindex(b"PK\x05\x06")
    directory = single[central:end]
    tail = bytearray(single[end:])
    struct.pack_into("<HHL", tail, 8, 2, 2, len(directory) * 2)
    second = directory.replace(b"kernel", b"kernal")
    refuse(single[:central] + directory + second + bytes(tail), tmp_path, "overlap")
    assert list(tmp_path.iterdir()) == []


def test_encrypted_entry_is_refused(tmp_path: Path) -> None:
    content = bytearray(plain("secret.py"))
    for offset in (6, content.rindex(b"PK\x01\x02") + 8):
        content[offset] |= 1
    refuse(bytes(content), tmp_path, "is encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path: Path, method: int) -> None:
    info, content = entry("app.py", b"1" * 100)
    info.compress_type = method
    refuse(archive((info, content)), tmp_path, "other than deflate")


@pytest.mark.parametrize("content", [b"", b"PK", plain("a.py")[:-30], archive(), archive(entry("d/", b""))])
def test_archive_without_files_or_end_is_refused(tmp_path: Path, content: bytes) -> None:
    refuse(content, tmp_path, "not a readable zip|holds no files")


def test_count_of_files_and_directories_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "ENTRIES_MAX", 5)
    unpack(plain("a/b/c/d", "e"), str(tmp_path), limit=LIMIT)
    refuse(plain("a/b/c/d/e", "f"), tmp_path / "directories", "more than 5 files and directories")
    refuse(plain("a", "b", "c", "d", "e", "f"), tmp_path / "files", "more than 5 entries")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 40),
)
def test_damaged_archive_raises_nothing_but_our_errors(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(archive(entry("app.py", b"x = 1\n" * 50), entry("d/e.txt", b"y"), link("l", "app.py")))
    for place, value in changes:
        content[place % len(content)] = value
    outer = tmp_path_factory.mktemp("fuzz")
    root = outer / "root"
    root.mkdir()
    with suppress(InvalidPackage, TooLarge):
        unpack(bytes(content[: len(content) - (cut if cut > 30 else 0)]), str(root), limit=10_000)
    assert list(outer.iterdir()) == [root]
    for path in root.rglob("*"):
        assert path.is_symlink() or stat.S_IMODE(path.stat().st_mode) in (0o755, 0o644, 0o600)
