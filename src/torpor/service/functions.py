"""Functions and what may be done to them: the one place that changes their records.

Every record is held in memory and written through: a call returns once its change is durable, and memory follows the
store, never runs ahead of it. All methods belong to one event loop's thread; between two awaits nothing else changes a
record, so a check and the write after it are one step.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torpor.model.account import PackageLimits, ReservationLimits
from torpor.model.clock import Clock
from torpor.model.errors import Conflict, InvalidRequest, NotFound, PreconditionFailed
from torpor.model.function import LATEST, Alias, CodeRef, FunctionRecord, FunctionVersion, VersionRecord
from torpor.model.provision import Provision
from torpor.service import provisions
from torpor.service import versions as published
from torpor.service.changes import Changes, NewFunction, OnChange, OnScale, new_revision
from torpor.service.packages import Package, Packages
from torpor.store.ports import CodeStore, MetadataStore

__all__ = ["Changes", "Functions", "NewFunction", "OnChange", "new_revision"]


def _any_runtime(contract: str, runtime: str) -> None:
    """Asks nothing of the host."""


class Functions:
    """The functions of one account.

    Raises StoreUnavailable, here and from every changing method, when a store fails; nothing has changed then.
    """

    def __init__(
        self,
        metadata: MetadataStore,
        code: CodeStore,
        *,
        clock: Clock,
        packages: PackageLimits,
        reservations: ReservationLimits,
        code_in_use: Callable[[], Iterable[CodeRef]] = tuple,
        on_change: OnChange | None = None,
        on_scale: OnScale | None = None,
        require_runtime: Callable[[str, str], object] = _any_runtime,
        require_snapshots: Callable[[], object] = tuple,
        revisions: Callable[[], str] = new_revision,
        other_packages: Mapping[str, PackageLimits] = MappingProxyType({}),
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._metadata = metadata
        self.packages = Packages(code, packages, other_packages, code_in_use)
        """Shared with whatever else keeps packages in the same store."""
        self._clock = clock
        self._reservations = reservations
        self._on_change = on_change
        self._on_scale = on_scale
        self._draw = draw
        self._require_runtime = require_runtime
        self._require_snapshots = require_snapshots
        self._revisions = revisions
        self._records = {record.name: record for record in metadata.functions()}
        self._reserved: int | None = None
        """The sum of all reservations; None until asked for after a change."""
        self._births = dict.fromkeys(self._records, 0)
        self._born = 0

    async def create(self, new: NewFunction, package: Package) -> FunctionRecord:
        """Raises Conflict if the name is taken, TooLarge and InvalidPackage for the package, and RuntimeMissing if this
        host cannot serve the runtime."""
        self._check_free(new.name)
        self._require_runtime(new.contract, new.runtime)
        size = _unpacked(new.configuration.get("layers", ()))
        async with self.packages.added(package, layers_bytes=size, contract=new.contract) as code:
            self._check_free(new.name)
            version = FunctionVersion(
                function=new.name,
                version=LATEST,
                resource=new.resource,
                revision="",
                contract=new.contract,
                runtime=new.runtime,
                handler=new.handler,
                code=code,
            )
            latest = self._changed(VersionRecord(version=version), new.configuration)
            record = FunctionRecord(name=new.name, latest=latest, tags=dict(new.tags))
            self._keep(record)
        self._born += 1
        self._births[new.name] = self._born
        self._tell(None, record.latest)
        return record

    def get(self, name: str) -> FunctionRecord:
        """Raises NotFound."""
        try:
            return self._records[name]
        except KeyError:
            raise NotFound(f"There is no function {name}.", what="function") from None

    def names(self, space: str | None = "") -> list[str]:
        """Of one space, in order: the part before a name's first slash; with None, of all of them."""
        return sorted(name for name, record in self._records.items() if space is None or record.space == space)

    def page(self, after: str | None, limit: int, space: str = "") -> tuple[list[FunctionRecord], str | None]:
        """At most `limit` records, ordered by name, of names behind `after`; and the next call's `after`, or None.

        A function deleted between two calls shifts nothing: `after` need not exist any more.
        """
        rest = [name for name in self.names(space) if after is None or name > after]
        shown = rest[:limit]
        return [self._records[name] for name in shown], shown[-1] if 0 < limit < len(rest) else None

    async def update_code(
        self, name: str, package: Package, *, expected_revision: str | None = None, changes: Changes | None = None
    ) -> FunctionRecord:
        """Replace the code, and set `changes` in the same step; configuration changed meanwhile is kept.

        Raises NotFound, PreconditionFailed if `expected_revision` is not the current one, Conflict if the function was
        deleted and made anew meanwhile, TooLarge and InvalidPackage for the package.
        """
        old = self._expected(name, expected_revision)
        birth = self._births[name]
        size, contract = (
            _unpacked((changes or {}).get("layers", old.latest.version.layers)),
            old.latest.version.contract,
        )
        async with self.packages.added(package, layers_bytes=size, contract=contract) as code:
            old = self._expected(name, expected_revision)
            if self._births[name] != birth:
                raise Conflict(f"The function {name} was replaced by another while its code was unpacked.")
            latest = replace(old.latest, version=replace(old.latest.version, code=code))
            return self._update(old, self._changed(latest, changes or {}))

    def update_configuration(
        self, name: str, changes: Changes, *, expected_revision: str | None = None
    ) -> FunctionRecord:
        """Raises NotFound, PreconditionFailed if `expected_revision` is not the current one, TooLarge for layers, and
        RuntimeMissing if this host cannot serve a new runtime."""
        old = self._expected(name, expected_revision)
        if "runtime" in changes:
            self._require_runtime(old.latest.version.contract, changes["runtime"])
        return self._update(old, self._changed(old.latest, changes))

    def delete(self, name: str) -> None:
        """Forget the function, its versions and aliases; packages go with the next sweep. Raises NotFound."""
        old = self.get(name)
        self._metadata.remove(name)
        del self._records[name], self._births[name]
        self._reserved = None
        for record in (old.latest, *published.ordered(old.versions)):
            self._tell(record, None)

    def publish(
        self,
        name: str,
        *,
        description: str | None = None,
        number: str | None = None,
        unless_changed: bool = False,
        expected_revision: str | None = None,
        expected_digest: str | None = None,
        minimum: int | None = None,
        replacing: bool = False,
    ) -> VersionRecord:
        """Keep a copy of the newest version under a number of its own: the next one, or `number`, past which the
        following numbers then go. `description` and `minimum` (environments) are the newest version's unless given.

        With `unless_changed`, the version published last is returned as it is, unless something has changed since.
        Raises NotFound, PreconditionFailed for another revision, InvalidRequest (`what` is "digest") for other code
        than expected, Conflict for a taken number unless it is `replacing` that version, and RuntimeMissing if this
        host cannot make the snapshot that the version needs.
        """
        old = self._expected(name, expected_revision)
        digest = old.latest.version.code.digest
        if expected_digest not in (None, digest):
            raise InvalidRequest(f"The function {name} has other code than expected; read it again.", what="digest")
        if unless_changed and (same := published.unchanged(old)) is not None:
            return same
        if old.latest.version.snapshots:
            self._require_snapshots()
        how = published.Publication(
            revision=self._revisions(),
            modified=self._clock.wall(),
            description=description,
            number=number,
            minimum=minimum,
        )
        record, number = published.publish(old, how, replacing=replacing)
        self._keep(record)
        self._tell(old.versions.get(number), record.versions[number])
        return record.versions[number]

    def resolve(self, name: str, qualifier: str) -> VersionRecord:
        """The version that this invocation goes to: the newest for "" and `$LATEST`, a numbered one, or an alias's,
        which may divide its invocations. Raises NotFound; `what` is "function", "version" or "alias"."""
        return published.resolve(self.get(name), qualifier, self._draw)

    def versions(self, name: str) -> list[VersionRecord]:
        """The published ones, oldest first. Raises NotFound."""
        return published.ordered(self.get(name).versions)

    def check_deletable(self, name: str, number: str) -> None:
        """Raises what `delete_version` would; changes nothing."""
        published.without_version(self.get(name), number)

    def delete_version(self, name: str, number: str) -> None:
        """Raises NotFound, and Conflict while an alias refers to it."""
        old = self.get(name)
        self._keep(published.without_version(old, number))
        self._tell(old.versions[number], None)

    def put_alias(self, name: str, alias: Alias, *, expected_revision: str | None = None) -> Alias:
        """Make or replace an alias; it gets a new revision, and environments kept for it are those of its version.

        Raises NotFound for the function or a version, InvalidRequest for name or weights, PreconditionFailed if the
        alias has another revision than expected; and as `provision` if its environments cannot move along."""
        record = self.get(name)
        published.expected_alias(record, alias.name, expected_revision)
        old = record.aliases.get(alias.name)
        kept = replace(alias, revision=self._revisions(), provision=old.provision if old else None)
        self._keep_settled(record, published.with_alias(record, kept))
        return kept

    def alias(self, name: str, alias: str) -> Alias:
        """Raises NotFound."""
        return published.find_alias(self.get(name), alias)

    def aliases(self, name: str) -> list[Alias]:
        """By name. Raises NotFound."""
        known = self.get(name).aliases
        return [known[alias] for alias in sorted(known)]

    def delete_alias(self, name: str, alias: str) -> None:
        """Raises NotFound."""
        record = self.get(name)
        self._keep_settled(record, published.without_alias(record, alias))

    def scale(self, name: str, version: str, minimum: int, maximum: int | None) -> VersionRecord:
        """Bound the number of a version's environments; its revision stays, and so do they. Raises NotFound, and
        InvalidRequest for bounds that exclude each other."""
        record, number = published.scaled(self.get(name), version, minimum, maximum)
        self._keep(record)
        self._tell_scaled(record, number)
        return published.resolve(record, number, self._draw)

    def provision(self, name: str, qualifier: str, number: int) -> Provision:
        """Keep so many environments of a version, or of the one an alias points at, initialised.

        Raises NotFound, Conflict if that version's are kept by another setting, and InvalidRequest for what is not
        published or if there is too little concurrency; see `provisions`.
        """
        record = self.get(name)
        provision = Provision(number=number, modified=self._clock.wall())
        new = provisions.provisioned(record, qualifier, provision)
        unreserved = self._reservations.account - self.total_reserved()
        provisions.check_room(record, new, unreserved, self._reservations.unreserved_minimum)
        self._keep_settled(record, new)
        if not provisions.moved(record, new):  # asked for again: what failed is tried again
            self._tell_scaled(new, provisions.target(new, qualifier))
        return provision

    def end_provision(self, name: str, qualifier: str) -> None:
        """Keep no environments for a version or alias any more, if any are. Raises NotFound."""
        record = self.get(name)
        if provisions.provision_of(record, qualifier) is not None:
            self._keep_settled(record, provisions.provisioned(record, qualifier, None))

    def tags(self, name: str) -> Mapping[str, str]:
        """Raises NotFound."""
        return self.get(name).tags

    def tag(self, name: str, tags: Mapping[str, str]) -> None:
        """Add or replace tags; the revision stays. Raises NotFound."""
        record = self.get(name)
        self._keep(replace(record, tags={**record.tags, **tags}))

    def untag(self, name: str, keys: Iterable[str]) -> None:
        """Take tags away; keys that are not there are passed over. Raises NotFound."""
        record = self.get(name)
        gone = set(keys)
        self._keep(replace(record, tags={key: value for key, value in record.tags.items() if key not in gone}))

    def reserve(self, name: str, concurrency: int | None) -> None:
        """Set aside concurrency for a function, or with None end that; the revision stays.

        Raises NotFound, and InvalidRequest for a negative number, for less than are kept initialised (`what` is "under
        provisioned", `limit` their number), or when less than `limit` would stay unreserved ("unreserved").
        """
        record = self.get(name)
        asked, had = concurrency or 0, _set_aside(record)
        if asked < 0:
            raise InvalidRequest("Reserved concurrency cannot be negative.", what="reserved", limit=0)
        kept = provisions.total(record)
        if concurrency is not None and asked < kept:
            reason = f"{kept} environments of it are kept initialised"
            raise InvalidRequest(f"{asked} cannot be reserved: {reason}.", what="under provisioned", limit=kept)
        left = self._reservations.account - self.total_reserved() + had - asked
        minimum = self._reservations.unreserved_minimum
        # Less than before is always allowed, so that limits lowered later trap nobody.
        if asked > had and left < minimum:
            reason = f"Reserving {asked} would leave {left} of the account's concurrency unreserved"
            raise InvalidRequest(f"{reason}; at least {minimum} must stay.", what="unreserved", limit=minimum)
        self._keep(replace(record, reserved_concurrency=concurrency))

    def reserved(self, name: str) -> int | None:
        """Raises NotFound."""
        return self.get(name).reserved_concurrency

    def total_reserved(self) -> int:
        """What all functions have set aside: each its reservation, or else the environments kept initialised for it."""
        if self._reserved is None:
            self._reserved = sum(map(_set_aside, self._records.values()))
        return self._reserved

    @property
    def concurrency(self) -> int:
        """Invocations that all functions together may run at once."""
        return self._reservations.account

    def code_usage(self, space: str = "") -> tuple[int, int]:
        """Bytes of the archives of a space's functions and versions, each for itself, and the number of functions."""
        records = [record for record in self._records.values() if record.space == space]
        return sum(kept.version.code.packed_bytes for record in records for kept in _all(record)), len(records)

    async def archive_of(self, name: str, qualifier: str = "") -> bytes:
        """A version's code as it was uploaded. Raises NotFound."""
        return await self.packages.archive(self.resolve(name, qualifier).version.code)

    async def sweep_code(self, still_used: Callable[[], Iterable[CodeRef]] = tuple) -> None:
        """Remove every package that no function or version and nothing in `still_used` refers to, and unfinished ones.

        `still_used` names what running environments hold, their layers included.
        """
        await self.packages.sweep(lambda: [*still_used(), *self._used()])

    def _used(self) -> Iterable[CodeRef]:
        for record in self._records.values():
            for kept in _all(record):
                yield kept.version.code
                yield from kept.version.layers

    def _check_free(self, name: str) -> None:
        if name in self._records:
            raise Conflict(f"The function {name} exists already.")

    def _expected(self, name: str, revision: str | None) -> FunctionRecord:
        record = self.get(name)
        if revision is not None and revision != record.latest.version.revision:
            raise PreconditionFailed(f"The function {name} has changed since revision {revision}; read it again.")
        return record

    def _changed(self, record: VersionRecord, changes: Changes) -> VersionRecord:
        fields: dict[str, Any] = dict(changes)
        settings = {**record.settings, **fields.pop("settings", {})}
        description = fields.pop("description", record.description)
        if "environment" in fields:
            fields["environment"] = dict(fields["environment"])
        version = replace(record.version, **fields, revision=self._revisions())
        self.packages.check_unpacked(version.code.unpacked_bytes + _unpacked(version.layers), version.contract)
        return VersionRecord(
            version=version,
            description=description,
            modified=self._clock.wall(),
            settings={key: value for key, value in settings.items() if value is not None},
        )

    def _update(self, old: FunctionRecord, latest: VersionRecord) -> FunctionRecord:
        record = replace(old, latest=latest)
        self._keep(record)
        self._tell(old.latest, record.latest)
        return record

    def _keep(self, record: FunctionRecord) -> None:
        self._metadata.save(record)
        self._records[record.name] = record
        self._reserved = None

    def _keep_settled(self, old: FunctionRecord, new: FunctionRecord) -> None:
        """Keep a record whose settings for environments have changed, and tell of every version that this moves."""
        new = provisions.settled(old, new)
        self._keep(new)
        for number in provisions.moved(old, new):
            self._tell_scaled(new, number)

    def _tell_scaled(self, record: FunctionRecord, number: str) -> None:
        if self._on_scale is not None:
            self._on_scale(published.resolve(record, number, self._draw).version)

    def _tell(self, old: VersionRecord | None, new: VersionRecord | None) -> None:
        if self._on_change is not None:
            self._on_change(old.version if old else None, new.version if new else None)


def _all(record: FunctionRecord) -> Iterable[VersionRecord]:
    return (record.latest, *record.versions.values())


def _set_aside(record: FunctionRecord) -> int:
    reserved = record.reserved_concurrency
    return provisions.total(record) if reserved is None else reserved


def _unpacked(layers: Iterable[CodeRef]) -> int:
    return sum(layer.unpacked_bytes for layer in layers)
