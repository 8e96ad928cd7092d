"""Snapshots are kept so that nobody reads or changes them without the key."""

import os
from pathlib import Path

import pytest

from torpor.model.errors import NotFound, StoreUnavailable
from torpor.store.snapshots import KEY_BYTES, SnapshotStore, read_key

MARKER = b"a secret that a process held in its memory"
MIB = 1024 * 1024


def _file(content: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    return descriptor


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(str(tmp_path / "snapshots"), bytes(KEY_BYTES))


PARTS = {
    "layout": b"{}",
    "memory": MARKER + bytes(3 * MIB) + os.urandom(MIB + 7) + bytes(2 * MIB),
    "files": b"",
}


def _saved(store: SnapshotStore) -> None:
    store.save("one", {name: _file(content) for name, content in PARTS.items()}, {"kernel": "6"})


def test_what_is_saved_is_loaded_again(store: SnapshotStore) -> None:
    _saved(store)

    assert {name: _content(part) for name, part in store.load("one").items()} == PARTS
    assert store.about("one") == {"kernel": "6"}
    assert store.names() == ["one"]


def test_no_file_holds_anything_of_it_in_the_clear_and_zeros_take_no_room(store: SnapshotStore, tmp_path: Path) -> None:
    _saved(store)

    (file,) = (tmp_path / "snapshots").iterdir()
    assert MARKER not in file.read_bytes()
    assert file.stat().st_size < 4 * MIB
    assert file.stat().st_mode & 0o777 == 0o600


def test_with_another_key_nothing_is_read(store: SnapshotStore, tmp_path: Path) -> None:
    _saved(store)
    other = SnapshotStore(str(tmp_path / "snapshots"), bytes(KEY_BYTES - 1) + b"1")

    for read in (other.load, other.about):
        with pytest.raises(StoreUnavailable, match="another key"):
            read("one")


@pytest.mark.parametrize("position", [3, 30, 60, 2000, -5], ids=str)
def test_a_changed_byte_is_noticed(store: SnapshotStore, tmp_path: Path, position: int) -> None:
    _saved(store)
    (file,) = (tmp_path / "snapshots").iterdir()
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)

    with pytest.raises(StoreUnavailable, match="damaged"):
        store.load("one")


def test_a_file_that_ends_early_is_noticed(store: SnapshotStore, tmp_path: Path) -> None:
    _saved(store)
    (file,) = (tmp_path / "snapshots").iterdir()
    file.write_bytes(file.read_bytes()[:-100_000])

    with pytest.raises(StoreUnavailable, match="damaged"):
        store.load("one")


def test_what_is_not_there_is_not_found_and_removed_without_a_word(store: SnapshotStore) -> None:
    with pytest.raises(NotFound):
        store.load("none")
    store.remove("none")


def test_what_an_end_half_way_left_is_cleared(store: SnapshotStore, tmp_path: Path) -> None:
    _saved(store)
    (tmp_path / "snapshots" / "two.snapshot.0123").write_bytes(b"half")

    assert store.names() == ["one"]
    assert len(list((tmp_path / "snapshots").iterdir())) == 1


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"

    assert read_key(str(path)) == read_key(str(path))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"short")

    with pytest.raises(StoreUnavailable, match="no key"):
        read_key(str(path))
