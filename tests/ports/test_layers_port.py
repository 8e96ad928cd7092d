"""Layer versions in every metadata store."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from torpor.model.function import CodeRef
from torpor.model.layer import LayerVersion
from torpor.store.memory import MemoryMetadataStore
from torpor.store.metadata import SqlMetadataStore
from torpor.store.migrations.upgrade import settings as migration_settings
from torpor.store.ports import MetadataStore

CODE = CodeRef(digest="a" * 64, packed_bytes=10, unpacked_bytes=20)
LAYER = LayerVersion(
    name="tools", number=1, code=CODE, created=1.5, description="d", runtimes=("python3.12",), architectures=("x86_64",)
)


@pytest.fixture(params=["memory", "sql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MetadataStore]:
    made: MetadataStore = MemoryMetadataStore() if request.param == "memory" else SqlMetadataStore(str(tmp_path / "db"))
    yield made
    made.close()


def test_saved_versions_come_back_in_order(store: MetadataStore) -> None:
    second, other = replace(LAYER, number=2), replace(LAYER, name="other", license="MIT")
    for layer in (second, LAYER, other):
        store.save_layer(layer)
    assert list(store.layers()) == [other, LAYER, second]


def test_saving_again_replaces_that_version_only(store: MetadataStore) -> None:
    second = replace(LAYER, number=2)
    store.save_layer(LAYER)
    store.save_layer(second)
    store.save_layer(replace(LAYER, deleted=True))
    assert list(store.layers()) == [replace(LAYER, deleted=True), second]


def test_layers_outlive_the_store_that_saved_them(tmp_path: Path) -> None:
    first = SqlMetadataStore(str(tmp_path / "db"))
    first.save_layer(LAYER)
    first.close()
    second = SqlMetadataStore(str(tmp_path / "db"))
    assert list(second.layers()) == [LAYER]
    second.close()


def test_database_from_before_there_were_layers_is_brought_up_to_date(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.begin() as connection:
        config = migration_settings()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql("INSERT INTO functions (name, tags) VALUES ('kept', '{}')")

    store = SqlMetadataStore(path)
    store.save_layer(LAYER)
    assert list(store.layers()) == [LAYER]
    store.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM functions").fetchall() == [("kept",)]
