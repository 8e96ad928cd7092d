"""Every metadata store, under the same expectations; then what only a database on a disk can do and suffer."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData, Table, create_engine, event
from sqlalchemy.pool import NullPool

from torpor.model.errors import InvalidRequest, StoreUnavailable
from torpor.model.function import LATEST, Alias, CodeRef, FunctionRecord, FunctionVersion, VersionRecord
from torpor.model.server import HealthCheck as ServerHealthCheck
from torpor.model.server import Hook, ServerSettings
from torpor.store import documents
from torpor.store.memory import MemoryMetadataStore
from torpor.store.metadata import SqlMetadataStore
from torpor.store.migrations.upgrade import settings as migration_settings
from torpor.store.migrations.upgrade import upgrade
from torpor.store.ports import MetadataStore
from torpor.store.schema import REVISION, metadata

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def code(digest: str) -> CodeRef:
    return CodeRef(digest=digest * 64, packed_bytes=10, unpacked_bytes=20)


def record(name: str = "greet", **fields: object) -> FunctionRecord:
    version = FunctionVersion(
        function=name,
        version=LATEST,
        resource=f"arn:{name}",
        revision="r1",
        contract="lambda",
        runtime="python3.12",
        handler="app.handler",
        code=code("a"),
        layers=(code("b"), code("c")),
        timeout_s=2.5,
        environment={"STAGE": "blue"},
    )
    latest = VersionRecord(version=version, description="d", modified=1.25, settings={"VpcConfig": {"SubnetIds": []}})
    return replace(FunctionRecord(name=name, latest=latest), **fields)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "sqlite"])
def reopened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], MetadataStore]]:
    """Opens the same store again and again; for the one in memory that is the same object."""
    memory, opened = MemoryMetadataStore(), list[MetadataStore]()

    def open_store() -> MetadataStore:
        for store in opened:
            store.close()
        opened.append(memory if request.param == "memory" else SqlMetadataStore(str(tmp_path / "torpor.db")))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


def test_new_store_holds_nothing(reopened: Callable[[], MetadataStore]) -> None:
    assert list(reopened().functions()) == []


def test_saved_record_comes_back_equal_after_reopening(reopened: Callable[[], MetadataStore]) -> None:
    saved = record(reserved_concurrency=0, tags={"team": "blue"})
    reopened().save(saved)
    assert list(reopened().functions()) == [saved]


def test_second_save_replaces_the_first(reopened: Callable[[], MetadataStore]) -> None:
    store = reopened()
    store.save(record(reserved_concurrency=5, tags={"a": "1"}))
    newer = record(tags={"b": "2"})
    store.save(newer)
    assert list(store.functions()) == [newer]


def test_records_are_ordered_by_code_points_of_their_names(reopened: Callable[[], MetadataStore]) -> None:
    store = reopened()
    for name in ("b", "a-1", "B", "a_1", "a"):
        store.save(record(name))
    assert [found.name for found in store.functions()] == ["B", "a", "a-1", "a_1", "b"]


def test_removed_record_is_gone_after_reopening(reopened: Callable[[], MetadataStore]) -> None:
    store = reopened()
    store.save(record("a"))
    store.save(record("b"))
    store.remove("a")
    assert [found.name for found in reopened().functions()] == ["b"]


def test_removing_an_unknown_name_changes_nothing(reopened: Callable[[], MetadataStore]) -> None:
    store = reopened()
    store.save(record("a"))
    store.remove("other")
    assert list(store.functions()) == [record("a")]


def test_value_without_json_form_is_refused_and_nothing_saved(reopened: Callable[[], MetadataStore]) -> None:
    store = reopened()
    for value in (object(), "\ud800"):
        bad = record()
        with pytest.raises(InvalidRequest, match="cannot be stored as JSON"):
            store.save(replace(bad, latest=replace(bad.latest, settings={"x": value})))
    assert list(store.functions()) == []


def test_record_changed_after_saving_is_not_changed_in_the_store(reopened: Callable[[], MetadataStore]) -> None:
    store, inner = reopened(), {"SubnetIds": ["one"]}
    saved = record()
    store.save(replace(saved, latest=replace(saved.latest, settings={"VpcConfig": inner})))
    inner["SubnetIds"].append("two")
    (found,) = store.functions()
    assert found.latest.settings == {"VpcConfig": {"SubnetIds": ["one"]}}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(description=TEXT, environment=st.dictionaries(TEXT, TEXT), kept=st.dictionaries(TEXT, JSON, max_size=4))
def test_any_text_and_json_comes_back_equal(
    reopened: Callable[[], MetadataStore], description: str, environment: dict[str, str], kept: dict[str, object]
) -> None:
    store, plain = reopened(), record(tags=environment)
    version = replace(plain.latest.version, environment=environment)
    saved = replace(plain, latest=replace(plain.latest, version=version, description=description, settings=kept))
    store.save(saved)
    assert list(store.functions()) == [saved]


def published(number: str, **fields: object) -> VersionRecord:
    plain = record().latest
    return replace(plain, version=replace(plain.version, version=number, revision=f"v{number}", **fields))


def test_versions_and_aliases_come_back_equal_after_reopening(reopened: Callable[[], MetadataStore]) -> None:
    server = ServerSettings(
        command=("node", "app.js"),
        port=9000,
        hooks={"pre-stop": Hook(timeout_s=3.0, handler="app.stop")},
        health=ServerHealthCheck(path="/up"),
    )
    saved = record(
        versions={
            "1": published("1", concurrency=16, minimum=3, maximum=5),
            "12": published("12", server=server, persistent=True),
        },
        aliases={"live": Alias(name="live", version="12", revision="a", weights={"1": 0.25}, settings={"x": [1]})},
        next_version=14,
    )
    reopened().save(saved)
    assert list(reopened().functions()) == [saved]


def test_version_and_alias_taken_out_of_a_record_are_gone(reopened: Callable[[], MetadataStore]) -> None:
    store, alias = reopened(), Alias(name="live", version="1")
    store.save(record(versions={"1": published("1"), "2": published("2")}, aliases={"live": alias}, next_version=3))
    store.save(record("other", versions={"1": published("1")}))
    left = record(versions={"2": published("2", memory_mb=256)}, next_version=3)
    store.save(left)
    assert list(reopened().functions()) == [left, record("other", versions={"1": published("1")})]


def test_removed_function_leaves_no_version_to_one_of_the_same_name(reopened: Callable[[], MetadataStore]) -> None:
    store = reopened()
    store.save(record(versions={"1": published("1")}, next_version=2))
    store.remove("greet")
    store.save(record())
    assert list(reopened().functions()) == [record()]


def test_resources_are_kept_by_kind_and_name(reopened: Callable[[], MetadataStore]) -> None:
    store = reopened()
    for kind, name, size in (("pool", "b", 1), ("pool", "B", 2), ("other", "a", 3), ("pool", "b", 4)):
        store.save_resource(kind, name, {"size": size, "of": {"none": None}})
    store.save_resource("pool", "gone", {})
    store.remove_resource("pool", "gone")
    store.remove_resource("pool", "never")
    store = reopened()
    assert list(store.resources("pool")) == [
        ("B", {"size": 2, "of": {"none": None}}),
        ("b", {"size": 4, "of": {"none": None}}),
    ]
    assert list(store.resources("other")) == [("a", {"size": 3, "of": {"none": None}})]
    assert list(store.resources("none")) == []


def test_resource_without_json_form_is_refused(reopened: Callable[[], MetadataStore]) -> None:
    store = reopened()
    with pytest.raises(InvalidRequest, match="cannot be stored as JSON"):
        store.save_resource("pool", "a", {"x": object()})
    assert list(store.resources("pool")) == []


def test_versions_that_did_not_change_are_not_written_again(tmp_path: Path) -> None:
    store = SqlMetadataStore(str(tmp_path / "torpor.db"))
    first = record(versions={str(number): published(str(number)) for number in range(1, 20)}, next_version=20)
    store.save(first)
    written: list[str] = []

    @event.listens_for(store._engine, "before_cursor_execute")
    def note(_c: object, _k: object, statement: str, *_rest: object) -> None:
        written.extend([statement] if "versions" in statement and not statement.startswith("SELECT") else [])

    store.save(replace(first, tags={"a": "b"}))
    assert written == []
    store.save(replace(first, versions={**first.versions, "20": published("20")}, next_version=21))
    assert [statement.split()[0] for statement in written] == ["UPDATE", "INSERT"]
    store.close()


def test_database_from_before_versions_is_brought_up_to_date(tmp_path: Path) -> None:
    path = str(tmp_path / "torpor.db")
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.begin() as connection:
        config = migration_settings()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.exec_driver_sql("INSERT INTO functions (name, tags) VALUES ('greet', '{}')")
        document = documents.encode(record().latest)
        connection.exec_driver_sql("INSERT INTO versions VALUES ('greet', '$LATEST', ?)", (document,))
    store = SqlMetadataStore(path)
    assert list(store.functions()) == [record()]
    store.close()


def test_database_is_flushed_on_commit_and_private_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "torpor.db"
    store = SqlMetadataStore(str(path))
    with store._engine.connect() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
        foreign_keys = connection.exec_driver_sql("PRAGMA foreign_keys").scalar()
    store.close()
    assert (*pragmas, foreign_keys) == ("wal", 2, 1)
    assert path.stat().st_mode & 0o777 == 0o600


def _described(table: Table) -> list[tuple[Any, ...]]:
    columns = [
        (
            column.name,
            str(column.type),
            column.nullable,
            column.primary_key,
            str(getattr(column.server_default, "arg", "")),
        )
        for column in table.columns
    ]
    keys = [(key.target_fullname, key.ondelete) for key in table.foreign_keys]
    return [(table.primary_key.name,), *sorted(columns), *keys]


def test_newest_migration_leads_to_the_tables_that_a_new_database_has(tmp_path: Path) -> None:
    found = []
    SqlMetadataStore(str(tmp_path / "new.db")).close()
    for name in ("new", "migrated"):
        engine = create_engine(f"sqlite:///{tmp_path}/{name}.db", poolclass=NullPool)
        with engine.begin() as connection:
            upgrade(connection)
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
            kinds = MetaData()
            kinds.reflect(connection)
            found.append({name: _described(table) for name, table in kinds.tables.items()})
    assert found[0] == found[1] and "alembic_version" in found[0]
    assert ScriptDirectory.from_config(migration_settings()).get_current_head() == REVISION


@pytest.mark.parametrize("is_new", [True, False])
def test_new_and_current_databases_open_without_the_migration_tool(tmp_path: Path, is_new: bool) -> None:
    path = str(tmp_path / "torpor.db")
    if not is_new:
        SqlMetadataStore(path).close()
    program = (
        "import sys; from torpor.store.metadata import SqlMetadataStore as S; S(sys.argv[1]).close();"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program, path], timeout=60).returncode == 0


def test_failed_migration_leaves_the_database_empty(tmp_path: Path) -> None:
    path = str(tmp_path / "torpor.db")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE versions (unrelated TEXT)")
    connection.close()
    with pytest.raises(StoreUnavailable, match="already exists"):
        SqlMetadataStore(path)
    connection = sqlite3.connect(path)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    assert tables == [("versions",)]


def test_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "torpor.db")
    SqlMetadataStore(path).close()
    edit(path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreUnavailable, match="revision 9999, this one knows"):
        SqlMetadataStore(path)


def test_document_of_another_release_is_read_with_defaults_and_without_its_extras(tmp_path: Path) -> None:
    path = str(tmp_path / "torpor.db")
    store = SqlMetadataStore(path)
    store.save(record())
    store.close()
    edit(path, "UPDATE versions SET document = json_remove(json_set(document, '$.later', 1), '$.version.tracing')")
    store = SqlMetadataStore(path)
    assert list(store.functions()) == [record()]
    store.close()


def test_locked_database_is_unavailable_and_usable_again_once_free(tmp_path: Path) -> None:
    path = str(tmp_path / "torpor.db")
    store = SqlMetadataStore(path, busy_wait=0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="is locked by another program"):
        store.save(record())
    other.execute("ROLLBACK")
    other.close()
    store.save(record())
    assert list(store.functions()) == [record()]
    store.close()


def test_database_that_cannot_grow_keeps_what_it_has(tmp_path: Path) -> None:
    store = SqlMetadataStore(str(tmp_path / "torpor.db"))
    store.save(record("kept"))
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").close()
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        store.save(record("big", tags={"x": "y" * 100_000}))
    assert [found.name for found in store.functions()] == ["kept"]
    store.close()


@pytest.mark.parametrize("content", [b"not a database " * 600, b"SQLite format 3\0" + b"\xff" * 8000])
def test_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "torpor.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"is damaged or not a database; restore a backup"):
        SqlMetadataStore(str(path))
    assert path.read_bytes() == content


def test_damaged_document_is_unavailable(tmp_path: Path) -> None:
    path = str(tmp_path / "torpor.db")
    store = SqlMetadataStore(path)
    store.save(record())
    edit(path, "UPDATE versions SET document = '{\"version\": 3}'")
    with pytest.raises(StoreUnavailable, match="damaged record"):
        store.functions()
    store.close()


def test_folder_in_place_of_the_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=str(tmp_path)):
        SqlMetadataStore(str(tmp_path))


def test_read_only_database_can_be_read_but_not_changed(tmp_path: Path) -> None:
    path = str(tmp_path / "torpor.db")
    store = SqlMetadataStore(path)
    store.save(record())
    store.close()
    store = SqlMetadataStore(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(StoreUnavailable, match="is read-only"):
        store.save(record("other"))
    assert list(store.functions()) == [record()]
    store.close()


def test_password_of_a_server_is_not_shown_in_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        SqlMetadataStore(f"sqlite://user:secret@host/{tmp_path}/x.db")
    assert "secret" not in str(caught.value)


def edit(path: str, statement: str) -> None:
    assert os.path.exists(path)
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
