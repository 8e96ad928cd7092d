"""Environments kept initialised, by version and by alias: pure steps from one function record to the next.

A setting stands at the version or alias it was made for; what the engine acts on is the version's `minimum`, which
follows from it. An alias with weights keeps environments of its first version only.
"""

from collections.abc import Iterator
from dataclasses import replace

from torpor.model.errors import Conflict, InvalidRequest, NotFound
from torpor.model.function import LATEST, FunctionRecord
from torpor.model.provision import Provision
from torpor.service.versions import find_alias

UNPUBLISHED, TAKEN, POINTED_AT = "unpublished", "provisioned version", "provisioned alias"
"""What `InvalidRequest` and `Conflict` name: no published version, one with a setting already, one whose alias has."""


def provisions(record: FunctionRecord) -> Iterator[tuple[str, str, Provision]]:
    """Qualifier, version and setting of each, versions first."""
    for number, version in record.versions.items():
        if version.provision is not None:
            yield number, number, version.provision
    for name, alias in record.aliases.items():
        if alias.provision is not None:
            yield name, alias.version, alias.provision


def total(record: FunctionRecord) -> int:
    """Environments kept initialised for all versions of a function."""
    return sum(provision.number for _, _, provision in provisions(record))


def provision_of(record: FunctionRecord, qualifier: str) -> Provision | None:
    """A version's or an alias's own setting. Raises NotFound; `what` is "version" or "alias"."""
    if qualifier in record.versions:
        return record.versions[qualifier].provision
    if qualifier.isdecimal():
        raise NotFound(f"The function {record.name} has no version {qualifier}.", what="version")
    return find_alias(record, qualifier).provision


def target(record: FunctionRecord, qualifier: str) -> str:
    """The version whose environments a setting keeps. Raises NotFound, and InvalidRequest if it is not published."""
    if qualifier in ("", LATEST):
        raise InvalidRequest("What is not published has no environments that are kept initialised.", what=UNPUBLISHED)
    provision_of(record, qualifier)
    number = qualifier if qualifier in record.versions else record.aliases[qualifier].version
    return number if number == qualifier else target(record, number)


def provisioned(record: FunctionRecord, qualifier: str, provision: Provision | None) -> FunctionRecord:
    """The record with another setting for a version or an alias, or with None without one.

    Raises NotFound, InvalidRequest for what is not published, and Conflict if its version has a setting by other means.
    """
    if provision is not None:
        _check_alone(record, qualifier)
    provision_of(record, qualifier)
    if qualifier in record.versions:
        version = replace(record.versions[qualifier], provision=provision)
        changed = replace(record, versions={**record.versions, qualifier: version})
    else:
        alias = replace(record.aliases[qualifier], provision=provision)
        changed = replace(record, aliases={**record.aliases, qualifier: alias})
    return settled(record, changed)


def check_room(old: FunctionRecord, new: FunctionRecord, unreserved: int, least: int) -> None:
    """A function's environments count within its reservation, or else take from what is unreserved, of which so much
    must stay. Raises InvalidRequest: `what` is "over reserved", "over account" or "unreserved", and `limit` the
    reservation, what is left, or what must stay. Fewer than before are always allowed: lowered limits trap nobody.
    """
    more, reserved = total(new) - total(old), new.reserved_concurrency
    if more <= 0:
        return
    if reserved is not None:
        if total(new) > reserved:
            raise InvalidRequest(f"Only {reserved} are reserved for {new.name}.", what="over reserved", limit=reserved)
    elif more > unreserved:
        raise InvalidRequest(f"Only {unreserved} are left of the account's.", what="over account", limit=unreserved)
    elif unreserved - more < least:
        raise InvalidRequest(f"At least {least} must stay unreserved.", what="unreserved", limit=least)


def settled(old: FunctionRecord, new: FunctionRecord) -> FunctionRecord:
    """The new record with the minimum of each version whose settings are others than in the old one.

    Raises InvalidRequest and Conflict for an alias that has taken its setting where it cannot be."""
    for name, alias in new.aliases.items():
        if alias.provision is not None and alias != old.aliases.get(name):
            _check_alone(new, name)
    before, after = _numbers(old), _numbers(new)
    moved = {number for number in before.keys() | after.keys() if before.get(number) != after.get(number)}
    versions = dict(new.versions)
    for number in moved & versions.keys():
        kept = versions[number]
        versions[number] = replace(kept, version=replace(kept.version, minimum=after.get(number, 0)))
    return replace(new, versions=versions)


def moved(old: FunctionRecord, new: FunctionRecord) -> list[str]:
    """The versions in both records with another minimum; those that need fewer environments come first."""
    changes = {
        number: kept.version.minimum - old.versions[number].version.minimum
        for number, kept in new.versions.items()
        if number in old.versions
    }
    return sorted((number for number, change in changes.items() if change), key=lambda number: changes[number])


def _numbers(record: FunctionRecord) -> dict[str, int]:
    return {version: provision.number for _, version, provision in provisions(record)}


def _check_alone(record: FunctionRecord, qualifier: str) -> None:
    """A version's environments are kept by one setting only."""
    number = target(record, qualifier)
    others = [name for name, version, _ in provisions(record) if version == number and name != qualifier]
    if others and qualifier in record.versions:
        reason = f"the alias {others[0]}, which points at it, keeps environments already"
        raise Conflict(f"No environments are kept for version {number} of {record.name}: {reason}.", what=POINTED_AT)
    if others:
        reason = f"environments of its version {number} are kept for {others[0]} already"
        raise Conflict(f"No environments are kept for the alias {qualifier} of {record.name}: {reason}.", what=TAKEN)
