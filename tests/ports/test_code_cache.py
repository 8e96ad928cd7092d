"""Unpacked trees as a cache of the archives: brought back when they are gone, bounded, and never taken from users."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.functions_bench import archive

from torpor.model.errors import NotFound, StoreUnavailable
from torpor.model.function import CodeRef
from torpor.store import disk
from torpor.store.code import DiskCodeStore
from torpor.store.homes import DiskArchiveHome
from torpor.store.layout import settle
from torpor.store.ports import Tree

LIMIT = 10_000
EACH = 1000


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    return tmp_path / "trees"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    return tmp_path / "packages"


def store(tmp_path: Path, bound: int = 0) -> DiskCodeStore:
    home = DiskArchiveHome(str(tmp_path / "packages"))
    return DiskCodeStore(str(tmp_path / "trees"), home, built=str(tmp_path / "built"), bound=bound)


def add(code: DiskCodeStore, letter: str) -> CodeRef:
    """A package of a thousand bytes."""
    return code.add(archive(letter * EACH), unpacked_limit=LIMIT)


def present(trees: Path, *codes: CodeRef) -> list[bool]:
    return [(trees / code.digest).is_dir() for code in codes]


@pytest.mark.parametrize("gone", ["the tree", "the whole folder"])
def test_tree_that_was_deleted_is_made_again(tmp_path: Path, trees: Path, gone: str) -> None:
    code = store(tmp_path)
    ref = add(code, "x")
    shutil.rmtree(trees / ref.digest if gone == "the tree" else trees)
    assert not code.present(ref)
    folder = code.fetch(ref, [])
    assert folder == code.folder(ref) == str(trees / ref.digest)
    assert (Path(folder) / "app.py").read_text() == "x" * EACH
    assert code.present(ref)


def test_present_tree_is_not_made_again(tmp_path: Path, packages: Path) -> None:
    code = store(tmp_path)
    ref = add(code, "x")
    before = os.stat(code.folder(ref)).st_ino
    (packages / f"{ref.digest}.zip").unlink()
    assert os.stat(code.fetch(ref, [])).st_ino == before


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is missing in the code store"), (b"", "is damaged"), (archive("y"), "is damaged")]
)
def test_archive_that_is_missing_truncated_or_another_is_told(
    tmp_path: Path, trees: Path, packages: Path, content: bytes | None, message: str
) -> None:
    code = store(tmp_path)
    ref = add(code, "x")
    shutil.rmtree(trees)
    path = packages / f"{ref.digest}.zip"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        with pytest.raises(StoreUnavailable, match="is damaged"):
            code.archive(ref)
    with pytest.raises(StoreUnavailable, match=message):
        code.fetch(ref, [])
    assert not trees.exists() or os.listdir(trees) == []
    add(code, "x")
    assert code.fetch(ref, []) and code.archive(ref)


def test_disk_that_fails_is_told_and_leaves_nothing_half_made(
    tmp_path: Path, trees: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = store(tmp_path)
    ref = add(code, "x")
    shutil.rmtree(trees / ref.digest)

    def fail(_path: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("torpor.store.disk.flush", fail)
        with pytest.raises(StoreUnavailable, match="is full"):
            code.fetch(ref, [])
    assert os.listdir(trees) == []
    assert code.fetch(ref, [])


def test_least_recently_used_tree_makes_room(tmp_path: Path, trees: Path) -> None:
    code = store(tmp_path, bound=3 * EACH)
    a, b, c = (add(code, letter) for letter in "abc")
    assert code.present(a)
    d = add(code, "d")
    code.trim([d])
    assert present(trees, a, b, c, d) == [True, False, True, True]
    code.fetch(b, [])
    assert present(trees, a, b, c, d) == [True, True, False, True]
    assert code.archive(c)


def test_tree_in_use_is_never_taken_even_over_the_bound(tmp_path: Path, trees: Path) -> None:
    code = store(tmp_path, bound=2 * EACH)
    a, b = (add(code, letter) for letter in "ab")
    c = add(code, "c")
    code.trim([a, c])
    assert present(trees, a, b, c) == [True, False, True]
    code.fetch(b, [a, c])
    assert present(trees, a, b, c) == [True, True, True]
    code.trim([])
    assert sum(present(trees, a, b, c)) == 2 and present(trees, b) == [True]


def test_trees_of_an_earlier_life_count_and_go_first(tmp_path: Path, trees: Path) -> None:
    a, b = (add(store(tmp_path), letter) for letter in "ab")
    code = store(tmp_path, bound=2 * EACH)
    assert code.present(b)
    c = add(code, "c")
    code.trim([])
    assert present(trees, a, b, c) == [False, True, True]


def test_tree_that_is_looked_for_while_room_is_made_stays(
    tmp_path: Path, trees: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = store(tmp_path, bound=EACH)
    a, b = add(code, "a"), add(code, "b")
    remove, found = code._trees._remove, list[bool]()

    def remove_after_a_look(digest: str, use: int | None) -> bool:
        # Another request finds the tree between the choice of what goes and its removal.
        found.append(code.present(a))
        return remove(digest, use)

    monkeypatch.setattr(code._trees, "_remove", remove_after_a_look)
    code.trim([b])
    assert found == [True]
    assert present(trees, a, b) == [True, True]


def test_built_tree_outlives_the_cache_and_is_not_bounded(tmp_path: Path, trees: Path) -> None:
    code = store(tmp_path, bound=EACH)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "app.py").write_text("x" * 5 * EACH)
    ref = code.adopt(Tree(folder=str(tmp_path / "made")), unpacked_limit=LIMIT)
    shutil.rmtree(trees)
    code.trim([])
    assert code.present(ref) and code.fetch(ref, []) == code.folder(ref)
    assert (Path(code.folder(ref)) / "app.py").exists()
    with pytest.raises(NotFound):
        code.archive(ref)
    code.keep_only([])
    assert not code.present(ref)
    with pytest.raises(StoreUnavailable, match="deploy the function again"):
        code.fetch(ref, [])


def test_packages_of_a_former_layout_are_found_where_they_belong(tmp_path: Path) -> None:
    old = DiskCodeStore(str(tmp_path / "code"))
    ref = add(old, "x")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "app.py").write_text("y")
    built = old.adopt(Tree(folder=str(tmp_path / "made")), unpacked_limit=LIMIT)
    places = {name: str(tmp_path / "code" / name) for name in ("trees", "built")}
    for _ in range(2):
        settle(str(tmp_path / "code"), archives=str(tmp_path / "packages"), **places)
    code = DiskCodeStore(places["trees"], DiskArchiveHome(str(tmp_path / "packages")), built=places["built"])
    assert code.folder(ref) == f"{places['trees']}/{ref.digest}" and code.present(ref) and code.archive(ref)
    assert code.folder(built) == f"{places['built']}/{built.digest}" and code.present(built)
    assert sorted(os.listdir(tmp_path / "code")) == ["built", "trees"]


@pytest.fixture
def ordinary(tmp_path: Path) -> Iterator[Path]:
    """A folder of its own, in the rights of an ordinary account."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid():
            yield Path(folder)
            return
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_folders_that_forbid_it_to_their_owner_are_removed_and_what_links_name_is_not(ordinary: Path) -> None:
    kept = ordinary / "kept"
    kept.mkdir(mode=0o500)
    tree = ordinary / "tree"
    for name, mode in (("locked/deep", 0o000), ("read-only", 0o555)):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").touch()
        (tree / name).chmod(mode)
    (tree / "link").symlink_to(kept)
    (tree / "locked").chmod(0o000)
    tree.chmod(0o000)
    disk.remove(str(tree))
    assert os.listdir(ordinary) == ["kept"]
    assert kept.stat().st_mode & 0o777 == 0o500
    disk.remove(str(tree))
