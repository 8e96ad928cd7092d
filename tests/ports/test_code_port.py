"""The code store on disk: whole packages or nothing, whatever happens to the disk, and never another's files."""

import hashlib
import io
import os
import stat
import subprocess
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from torpor.model.errors import InvalidPackage, NotFound, StoreUnavailable, TooLarge
from torpor.model.function import CodeRef
from torpor.store import disk
from torpor.store.code import DiskCodeStore
from torpor.store.ports import Tree

LIMIT = 10_000_000


def archive(files: Mapping[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in files.items():
            package.writestr(name, content)
    return buffer.getvalue()


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "code"


@pytest.fixture
def store(folder: Path) -> DiskCodeStore:
    return DiskCodeStore(str(folder))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True)
    if made.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_added_package_is_unpacked_under_its_digest_with_its_archive(store: DiskCodeStore, folder: Path) -> None:
    content = archive({"app.py": "x = 1\n", "lib/data.bin": b"\0" * 100})
    code = store.add(content, unpacked_limit=LIMIT)
    digest = hashlib.sha256(content).hexdigest()
    assert code == CodeRef(digest=digest, packed_bytes=len(content), unpacked_bytes=106)
    assert store.folder(code) == str(folder / digest)
    assert (folder / digest / "app.py").read_text() == "x = 1\n"
    assert store.archive(code) == content
    assert listing(folder) == sorted(
        [digest, f"{digest}.zip", f"{digest}/app.py", f"{digest}/lib", f"{digest}/lib/data.bin"]
    )


def test_modes_do_not_depend_on_the_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        store = DiskCodeStore(str(folder))
        code = store.add(archive({"lib/app.py": "1"}), unpacked_limit=LIMIT)
    finally:
        os.umask(before)
    tree = Path(store.folder(code))
    modes = [stat.S_IMODE((tree / name).stat().st_mode) for name in (".", "lib", "lib/app.py")]
    assert modes == [0o755, 0o755, 0o644]


def test_package_added_again_is_not_unpacked_again(store: DiskCodeStore) -> None:
    content = archive({"lib/app.py": "1" * 5})
    first = store.add(content, unpacked_limit=LIMIT)
    before = os.stat(store.folder(first)).st_ino
    assert store.add(content, unpacked_limit=LIMIT) == first
    assert DiskCodeStore(os.path.dirname(store.folder(first))).add(content, unpacked_limit=LIMIT) == first
    assert os.stat(store.folder(first)).st_ino == before


def test_present_package_over_a_lower_limit_is_refused_and_kept(store: DiskCodeStore) -> None:
    content = archive({"app.py": "1" * 500})
    code = store.add(content, unpacked_limit=500)
    with pytest.raises(TooLarge) as caught:
        store.add(content, unpacked_limit=499)
    assert (caught.value.what, caught.value.limit) == ("unpacked", 499)
    assert store.archive(code) == content


def test_same_package_added_by_many_threads_is_there_once(store: DiskCodeStore, folder: Path) -> None:
    content = archive({f"module_{n}.py": str(n) for n in range(50)})
    found: list[CodeRef] = []
    start = threading.Barrier(4)

    def add() -> None:
        start.wait()
        found.append(store.add(content, unpacked_limit=LIMIT))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert sorted(os.listdir(folder)) == [found[0].digest, f"{found[0].digest}.zip"]
    assert len(os.listdir(store.folder(found[0]))) == 50


@pytest.mark.parametrize("content", [b"", b"no archive", archive({"../out": "1"}), archive({"a": "1", "a/b": "2"})])
def test_refused_package_leaves_nothing_behind(store: DiskCodeStore, folder: Path, content: bytes) -> None:
    store.add(archive({"app.py": "1"}), unpacked_limit=LIMIT)
    before = listing(folder.parent)
    with pytest.raises(InvalidPackage):
        store.add(content, unpacked_limit=LIMIT)
    assert listing(folder.parent) == before


def test_package_broken_in_its_last_file_leaves_nothing_behind(store: DiskCodeStore, folder: Path) -> None:
    content = bytearray(archive({"a.py": "1" * 1000, "z.bin": os.urandom(3000)}))
    content[content.index(b"z.bin") + 200] ^= 0xFF
    with pytest.raises(InvalidPackage):
        store.add(bytes(content), unpacked_limit=LIMIT)
    assert listing(folder) == []


def test_too_large_package_leaves_nothing_behind(store: DiskCodeStore, folder: Path) -> None:
    with pytest.raises(TooLarge):
        store.add(archive({"a": b"1" * 600, "b": b"1" * 401}), unpacked_limit=1000)
    assert listing(folder) == []
    assert store.add(archive({"a": b"1" * 600, "b": b"1" * 400}), unpacked_limit=1000).unpacked_bytes == 1000


@pytest.mark.privileged
def test_full_disk_is_unavailable_and_leaves_nothing_behind(small_disk: Path) -> None:
    store = DiskCodeStore(str(small_disk))
    with pytest.raises(StoreUnavailable, match="is full"):
        store.add(archive({"app.py": "1", "big.bin": b"1" * 1_000_000}), unpacked_limit=LIMIT)
    with pytest.raises(StoreUnavailable, match="is full"):
        # The tree fits, its archive beside it does not.
        store.add(archive({"big.bin": os.urandom(150_000)}), unpacked_limit=LIMIT)
    assert listing(small_disk) == []
    store.add(archive({"app.py": "1"}), unpacked_limit=LIMIT)


@pytest.mark.parametrize("failing", ["symlink", "fchmod", "rename"])
def test_failing_disk_operation_leaves_nothing_behind(
    store: DiskCodeStore, folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO(archive({"a/app.py": "1"}))
    with zipfile.ZipFile(buffer, "a") as package:
        package.writestr(link, "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            store.add(buffer.getvalue(), unpacked_limit=LIMIT)
    assert listing(folder) == []


def test_failed_rename_of_the_tree_leaves_an_archive_to_the_next_sweep(
    store: DiskCodeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def fail_for_trees(source: str, target: str) -> None:
        if source.endswith("tree"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail_for_trees)
        with pytest.raises(StoreUnavailable, match="is full"):
            store.add(archive({"app.py": "1"}), unpacked_limit=LIMIT)
    assert [name[64:] for name in listing(folder)] == [".zip"]
    store.keep_only([])
    assert listing(folder) == []


def test_c_library_without_the_flush_of_one_file_system_flushes_all(
    store: DiskCodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr(disk.ctypes, "CDLL", lambda *_arguments, **_options: object())
    monkeypatch.setattr(os, "sync", lambda: flushed.append(True))
    store.add(archive({"app.py": "1"}), unpacked_limit=LIMIT)
    assert flushed == [True]


def test_archive_of_an_unknown_package_is_not_found(store: DiskCodeStore) -> None:
    with pytest.raises(NotFound):
        store.archive(CodeRef(digest="0" * 64, packed_bytes=1, unpacked_bytes=1))


def test_keep_only_removes_the_unused_the_unfinished_and_nothing_else(store: DiskCodeStore, folder: Path) -> None:
    kept = store.add(archive({"app.py": "1"}), unpacked_limit=LIMIT)
    gone = store.add(archive({"deep/er/app.py": "2"}), unpacked_limit=LIMIT)
    (folder / ".unfinished-abc" / "tree").mkdir(parents=True)
    (folder / f".unfinished-{gone.digest}" / "half").mkdir(parents=True)
    (folder / f"{'0' * 64}.zip").write_bytes(b"an archive whose tree was never made")
    (folder / "lost+found").mkdir()
    store.keep_only([kept, CodeRef(digest="f" * 64, packed_bytes=1, unpacked_bytes=1)])
    assert sorted(os.listdir(folder)) == sorted([kept.digest, f"{kept.digest}.zip", "lost+found"])
    assert store.archive(kept)


def test_keep_only_spares_a_package_being_added(
    store: DiskCodeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = disk.flush

    def sweep_then_flush(path: str) -> None:
        store.keep_only([])
        flush(path)

    monkeypatch.setattr(disk, "flush", sweep_then_flush)
    code = store.add(archive({"app.py": "1"}), unpacked_limit=LIMIT)
    assert sorted(os.listdir(folder)) == [code.digest, f"{code.digest}.zip"]


def test_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="Not a directory"):
        DiskCodeStore(str(tmp_path / "file" / "code"))


def built(folder: Path) -> Tree:
    """A tree as a build may leave it."""
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "secret").write_text("s")
    (folder / "sub" / "secret").chmod(0o600)
    (folder / "absolute").symlink_to("/nowhere")
    os.utime(folder / "sub" / "secret", (1, 1))
    return Tree(folder=str(folder))


def test_adopted_tree_keeps_modes_links_and_times(store: DiskCodeStore, tmp_path: Path) -> None:
    code = store.adopt(built(tmp_path / "built"), unpacked_limit=1000)
    kept = Path(store.folder(code))

    assert not (tmp_path / "built").exists()
    assert (kept / "sub" / "secret").stat().st_mode & 0o777 == 0o600
    assert (kept / "sub" / "secret").stat().st_mtime == 1
    assert os.readlink(kept / "absolute") == "/nowhere"
    assert code.unpacked_bytes == len("s") + len("/nowhere")
    with pytest.raises(NotFound):
        store.archive(code)


def test_the_same_tree_adopted_again_is_there_once(store: DiskCodeStore, tmp_path: Path, folder: Path) -> None:
    first = store.adopt(built(tmp_path / "one"), unpacked_limit=1000)
    second = store.adopt(built(tmp_path / "two"), unpacked_limit=1000)

    assert first == second
    assert os.listdir(folder) == [first.digest]
    assert not (tmp_path / "two").exists()


def test_trees_that_differ_in_a_mode_only_are_two(store: DiskCodeStore, tmp_path: Path) -> None:
    first = store.adopt(built(tmp_path / "one"), unpacked_limit=1000)
    other = built(tmp_path / "two")
    Path(other.folder, "sub", "secret").chmod(0o644)

    assert store.adopt(other, unpacked_limit=1000).digest != first.digest


def test_tree_that_is_too_large_stays_where_it_is(store: DiskCodeStore, tmp_path: Path, folder: Path) -> None:
    tree = built(tmp_path / "built")

    with pytest.raises(TooLarge):
        store.adopt(tree, unpacked_limit=3)

    assert Path(tree.folder, "sub", "secret").exists()
    assert os.listdir(folder) == []


def test_unused_trees_are_removed(store: DiskCodeStore, tmp_path: Path, folder: Path) -> None:
    store.adopt(built(tmp_path / "built"), unpacked_limit=1000)

    store.keep_only([])

    assert os.listdir(folder) == []
