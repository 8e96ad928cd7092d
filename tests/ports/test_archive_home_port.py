"""Every home of archives, under the same expectations; then what each suffers by itself."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from tests.support.objects import PLAIN, object_store

from torpor.model.errors import NotFound, StoreUnavailable
from torpor.store import disk
from torpor.store.homes import DiskArchiveHome
from torpor.store.objects import ObjectArchiveHome
from torpor.store.ports import ArchiveHome

A, B, C = "a" * 64, "b" * 64, "c" * 64
KEY = ("test", "test")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with object_store() as running:
        boto3.client("s3", endpoint_url=running, **PLAIN).create_bucket(Bucket="packages")
        yield running


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("[", "-").replace("]", "")


@pytest.fixture(params=["disk", "objects"])
def reopened(request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> Callable[[], ArchiveHome]:
    """Opens the same home again and again."""
    if request.param == "disk":
        return lambda: DiskArchiveHome(str(tmp_path / "packages"))
    url = request.getfixturevalue("address")
    return lambda: ObjectArchiveHome(f"s3://packages/{prefix}", endpoint=url, key=KEY, region="us-east-1")


def test_archive_comes_back_as_it_was_after_reopening(reopened: Callable[[], ArchiveHome]) -> None:
    content = os.urandom(3_000_000)
    reopened().put(A, content)
    reopened().put(B, b"")
    assert (reopened().get(A), reopened().get(B)) == (content, b"")


def test_unknown_archive_is_not_found(reopened: Callable[[], ArchiveHome]) -> None:
    with pytest.raises(NotFound, match=A):
        reopened().get(A)


def test_archive_that_is_there_is_written_again(reopened: Callable[[], ArchiveHome]) -> None:
    home = reopened()
    home.put(A, b"damaged")
    home.put(A, b"whole")
    assert home.get(A) == b"whole"


def test_keep_only_removes_what_is_not_named(reopened: Callable[[], ArchiveHome]) -> None:
    home = reopened()
    for digest in (A, B, C):
        home.put(digest, b"x")
    home.keep_only([B, "d" * 64])
    assert home.get(B) == b"x"
    for digest in (A, C):
        with pytest.raises(NotFound):
            home.get(digest)


def test_homes_of_several_servers_in_one_bucket_leave_each_other_alone(address: str, prefix: str) -> None:
    one, two = (
        ObjectArchiveHome(f"s3://packages/{prefix}/{name}", endpoint=address, key=KEY, region="us-east-1")
        for name in ("one", "two")
    )
    one.put(A, b"1")
    two.put(A, b"2")
    one.keep_only([])
    assert two.get(A) == b"2"
    with pytest.raises(NotFound):
        one.get(A)


def test_object_that_is_no_archive_is_left_alone(address: str, prefix: str) -> None:
    client = boto3.client("s3", endpoint_url=address, **PLAIN)
    client.put_object(Bucket="packages", Key=f"{prefix}/notes.txt", Body=b"mine")
    ObjectArchiveHome(f"s3://packages/{prefix}", endpoint=address, key=KEY, region="us-east-1").keep_only([])
    assert client.get_object(Bucket="packages", Key=f"{prefix}/notes.txt")["Body"].read() == b"mine"


def test_store_that_does_not_answer_is_unavailable_without_its_keys_in_the_error() -> None:
    home = ObjectArchiveHome("s3://packages/x", endpoint="http://127.0.0.1:9", key=("id", "topsecret"))
    for call in (lambda: home.put(A, b"x"), lambda: home.get(A), lambda: home.keep_only([])):
        with pytest.raises(StoreUnavailable, match="s3://packages/x does not answer") as caught:
            call()
        assert "topsecret" not in f"{caught.value} {caught.value.__cause__}"


def test_bucket_that_does_not_exist_is_unavailable_to_writers(address: str) -> None:
    home = ObjectArchiveHome("s3://nobodys/x", endpoint=address, key=KEY, region="us-east-1")
    with pytest.raises(StoreUnavailable, match="s3://nobodys/x does not exist"):
        home.put(A, b"x")


def test_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = DiskArchiveHome(str(tmp_path))
    home.put(A, b"before")

    def fail(_path: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("torpor.store.homes.flush_path", fail)
        with pytest.raises(StoreUnavailable, match="is full"):
            home.put(A, b"after")
    assert os.listdir(tmp_path) == [f"{A}.zip"] and home.get(A) == b"before"


def test_unfinished_write_of_an_earlier_life_is_removed_and_nothing_else(tmp_path: Path) -> None:
    home = DiskArchiveHome(str(tmp_path))
    for name in (".incoming-0123", "notes.txt", f"{A}.zip"):
        (tmp_path / name).write_bytes(b"x")
    home.keep_only([A])
    assert sorted(os.listdir(tmp_path)) == [f"{A}.zip", "notes.txt"]


def test_write_under_way_is_spared_by_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, flush = DiskArchiveHome(str(tmp_path)), disk.flush_path

    def sweep_then_flush(path: str) -> None:
        if path != str(tmp_path):
            home.keep_only([])
        flush(path)

    monkeypatch.setattr("torpor.store.homes.flush_path", sweep_then_flush)
    home.put(A, b"x")
    assert home.get(A) == b"x"
