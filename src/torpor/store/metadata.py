"""Functions, layers and other resources in a relational database: SQLite in a file, or any server SQLAlchemy reaches.

SQLite runs with a write-ahead log that is flushed on every commit, so what a call has returned for survives the end of
the process and of the machine.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, inspect, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from torpor.model.errors import StoreUnavailable
from torpor.model.function import LATEST, FunctionRecord, VersionRecord
from torpor.model.layer import LayerVersion
from torpor.store import documents
from torpor.store.schema import REVISION, functions, layers, metadata, resources, stored_revision, versions
from torpor.store.sqlite import BUSY_WAIT, PRAGMAS, prepare_file, reason_of


class SqlMetadataStore:
    """A `MetadataStore` in SQL. Safe to share between threads.

    `url_or_path` is a file path (SQLite) or an SQLAlchemy URL. A new database is set up, an older one brought up to
    date. Every method raises StoreUnavailable when the database cannot do its part.
    """

    def __init__(self, url_or_path: str, *, busy_wait: float = BUSY_WAIT) -> None:
        self._place = _shown(url_or_path)
        with self._translated():
            self._engine = _engine(url_or_path, busy_wait)
        try:
            with self._transaction() as connection:
                self._bring_up_to_date(connection)
        except BaseException:
            self._engine.dispose()
            raise

    def functions(self) -> Iterable[FunctionRecord]:
        with self._transaction() as connection:
            heads = connection.execute(select(functions)).all()
            rows = connection.execute(select(versions)).all()
        kept: dict[str, dict[str, VersionRecord]] = {}
        for row in rows:
            kept.setdefault(row.function, {})[row.version] = documents.decode_version(row.document)
        # Sorted here because databases order text by their own collation.
        heads = sorted((head for head in heads if LATEST in kept.get(head.name, ())), key=lambda head: head.name)
        return [_record(head, kept[head.name]) for head in heads]

    def save(self, record: FunctionRecord) -> None:
        head = {
            "reserved_concurrency": record.reserved_concurrency,
            "tags": documents.encode(record.tags),
            "aliases": documents.encode(record.aliases),
            "next_version": record.next_version,
        }
        wanted = {LATEST: documents.encode(record.latest)}
        wanted |= {number: documents.encode(version) for number, version in record.versions.items()}
        with self._transaction() as connection:
            _put(connection, functions, {"name": record.name}, head)
            _save_versions(connection, record.name, wanted)

    def remove(self, name: str) -> None:
        with self._transaction() as connection:
            connection.execute(delete(versions).where(versions.c.function == name))
            connection.execute(delete(functions).where(functions.c.name == name))

    def layers(self) -> Iterable[LayerVersion]:
        with self._transaction() as connection:
            rows = connection.execute(select(layers.c.document)).all()
        found = (documents.decode_layer(row.document) for row in rows)
        return sorted(found, key=lambda layer: (layer.name, layer.number))

    def save_layer(self, layer: LayerVersion) -> None:
        key = {"name": layer.name, "number": layer.number}
        with self._transaction() as connection:
            _put(connection, layers, key, {"document": documents.encode(layer)})

    def resources(self, kind: str) -> Iterable[tuple[str, dict[str, Any]]]:
        query = select(resources.c.name, resources.c.document).where(resources.c.kind == kind)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        found = [(row.name, documents.decode_resource(row.document)) for row in rows]
        return sorted(found, key=lambda resource: resource[0])

    def save_resource(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        values = {"document": documents.encode(document)}
        with self._transaction() as connection:
            _put(connection, resources, {"kind": kind, "name": name}, values)

    def remove_resource(self, kind: str, name: str) -> None:
        with self._transaction() as connection:
            connection.execute(delete(resources).where(resources.c.kind == kind, resources.c.name == name))

    def close(self) -> None:
        """Release the database file or server connections; nothing is lost without it."""
        with self._translated():
            self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"The metadata database {self._place} {reason_of(error)}.") from error

    def _bring_up_to_date(self, connection: Connection) -> None:
        stored = _stored_revision(connection)
        if stored == REVISION:
            return
        if stored is None and not inspect(connection).get_table_names():
            _set_up(connection)
            return
        # Imported only when needed: it costs as much as a quarter of the server's whole start.
        from alembic.util import CommandError

        from torpor.store.migrations.upgrade import upgrade

        try:
            upgrade(connection)
        except CommandError as error:
            reason = f"was written by another release (revision {stored}, this one knows {REVISION}); upgrade first"
            raise StoreUnavailable(f"The metadata database {self._place} {reason}.") from error


def _put(connection: Connection, table: Any, key: dict[str, Any], values: dict[str, Any]) -> None:
    """Update the row or insert it: unlike a replacement, it leaves rows that refer to this one alone."""
    changed = connection.execute(update(table).filter_by(**key).values(**values))
    if changed.rowcount == 0:
        connection.execute(insert(table).values(**key, **values))


def _save_versions(connection: Connection, name: str, wanted: Mapping[str, str]) -> None:
    query = select(versions.c.version, versions.c.document).where(versions.c.function == name)
    kept = {row.version: row.document for row in connection.execute(query)}
    for version in kept.keys() - wanted.keys():
        connection.execute(delete(versions).where(versions.c.function == name, versions.c.version == version))
    for version, document in wanted.items():
        if kept.get(version) != document:
            _put(connection, versions, {"function": name, "version": version}, {"document": document})


def _record(head: Any, kept: Mapping[str, VersionRecord]) -> FunctionRecord:
    return FunctionRecord(
        name=head.name,
        latest=kept[LATEST],
        reserved_concurrency=head.reserved_concurrency,
        tags=documents.decode_tags(head.tags),
        versions={number: version for number, version in kept.items() if number != LATEST},
        aliases=documents.decode_aliases(head.aliases),
        next_version=head.next_version,
    )


def _stored_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(stored_revision.name):
        return None
    return connection.execute(select(stored_revision.c.version_num)).scalar()


def _set_up(connection: Connection) -> None:
    """Make the tables as the migrations would leave them."""
    metadata.create_all(connection)
    stored_revision.create(connection)
    connection.execute(insert(stored_revision).values(version_num=REVISION))


def _engine(url_or_path: str, busy_wait: float) -> Engine:
    if "://" not in url_or_path:
        prepare_file(url_or_path)
        url_or_path = f"sqlite:///{url_or_path}"
    url = make_url(url_or_path)
    if url.get_backend_name() != "sqlite":
        return create_engine(url)
    options = {"timeout": busy_wait, "check_same_thread": False}
    engine = create_engine(url, connect_args=options, pool_size=1, max_overflow=0)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_at_once)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transactions leave out schema changes; with it out of the way a killed migration leaves nothing.
    connection.isolation_level = None
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_at_once(connection: Connection) -> None:
    # A transaction that turns from reading to writing can fail at once when another program writes; this one waits.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _shown(url_or_path: str) -> str:
    return make_url(url_or_path).render_as_string() if "://" in url_or_path else url_or_path
