"""Published versions and aliases: pure steps from one function record to the next, and what a qualifier stands for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torpor.model.errors import Conflict, InvalidRequest, NotFound, PreconditionFailed
from torpor.model.function import LATEST, Alias, FunctionRecord, VersionRecord

_NEUTRAL = {"version": "", "revision": "", "minimum": 0, "maximum": None}
"""What a version has of its own, unlike the function it was published from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """How a version is published."""

    revision: str
    modified: float
    description: str | None = None
    """None takes the function's own."""
    number: str | None = None
    minimum: int | None = None
    """Of its environments; None takes the function's own. A replaced version's bounds stay in any case."""


def publish(record: FunctionRecord, how: Publication, *, replacing: bool = False) -> tuple[FunctionRecord, str]:
    """The record with a copy of its newest version under a number of its own, and that number.

    Raises Conflict if the number is taken, unless `replacing`.
    """
    number = how.number or str(record.next_version)
    if number in record.versions and not replacing:
        raise Conflict(f"The function {record.name} has a version {number} already.")
    latest = record.latest
    bounds = record.versions.get(number, latest)
    version = replace(
        latest.version,
        version=number,
        revision=how.revision,
        minimum=how.minimum if bounds is latest and how.minimum is not None else bounds.version.minimum,
        maximum=bounds.version.maximum,
    )
    description = latest.description if how.description is None else how.description
    published = replace(latest, version=version, description=description, modified=how.modified)
    following = max(record.next_version, int(number) + 1) if number.isdecimal() else record.next_version
    versions = {**record.versions, number: published}
    return replace(record, versions=versions, next_version=following), number


def unchanged(record: FunctionRecord) -> VersionRecord | None:
    """The newest numbered version, if neither code nor configuration has changed since it was published."""
    numbered = [number for number in record.versions if number.isdecimal()]
    if not numbered:
        return None
    newest = record.versions[max(numbered, key=int)]
    return newest if _content(newest) == _content(record.latest) else None


def resolve(record: FunctionRecord, qualifier: str, draw: Callable[[], float]) -> VersionRecord:
    """The version behind a number, an alias, `$LATEST` or nothing; `draw` (0 to below 1) divides an alias's calls.

    Raises NotFound; `what` is "version" or "alias".
    """
    if qualifier in ("", LATEST):
        return record.latest
    version = record.versions.get(qualifier)
    if version is not None:
        return version
    if _is_version(qualifier):
        raise _no_version(record, qualifier)
    return resolve(record, chosen(find_alias(record, qualifier), draw), draw)


def chosen(alias: Alias, draw: Callable[[], float]) -> str:
    """The version that this one invocation through the alias goes to."""
    if not alias.weights:
        return alias.version
    mark = draw()
    for version, weight in alias.weights.items():
        if mark < weight:
            return version
        mark -= weight
    return alias.version


def without_version(record: FunctionRecord, number: str) -> FunctionRecord:
    """Raises NotFound, and Conflict while an alias refers to the version."""
    if number not in record.versions:
        raise _no_version(record, number)
    using = sorted(alias.name for alias in record.aliases.values() if number in (alias.version, *alias.weights))
    if using:
        reason = f"these aliases refer to it: {', '.join(using)}"
        raise Conflict(f"The version {number} of the function {record.name} cannot be deleted: {reason}.")
    return replace(record, versions={key: value for key, value in record.versions.items() if key != number})


def with_alias(record: FunctionRecord, alias: Alias) -> FunctionRecord:
    """Raises NotFound for a version that is not there, InvalidRequest for a name or weight that cannot be one."""
    if not alias.name or _is_version(alias.name):
        raise InvalidRequest(f"An alias cannot be called {alias.name!r}.", what="alias")
    if not all(0 <= weight <= 1 for weight in alias.weights.values()) or sum(alias.weights.values()) > 1:
        raise InvalidRequest("The weights of an alias are parts of one whole.", what="weights")
    for version in (alias.version, *alias.weights):
        if version != LATEST and version not in record.versions:
            raise _no_version(record, version)
    return replace(record, aliases={**record.aliases, alias.name: alias})


def find_alias(record: FunctionRecord, name: str) -> Alias:
    """Raises NotFound."""
    try:
        return record.aliases[name]
    except KeyError:
        raise NotFound(f"The function {record.name} has no alias {name}.", what="alias") from None


def expected_alias(record: FunctionRecord, name: str, revision: str | None) -> Alias | None:
    """The alias as it is, if it is there. Raises PreconditionFailed if its revision is another one."""
    alias = record.aliases.get(name)
    if revision is not None and (alias is None or alias.revision != revision):
        raise PreconditionFailed(f"The alias {name} has changed since revision {revision}; read it again.")
    return alias


def without_alias(record: FunctionRecord, name: str) -> FunctionRecord:
    """Raises NotFound."""
    find_alias(record, name)
    return replace(record, aliases={key: value for key, value in record.aliases.items() if key != name})


def scaled(record: FunctionRecord, number: str, minimum: int, maximum: int | None) -> tuple[FunctionRecord, str]:
    """The record with other bounds for one version, `$LATEST` included, under the same revision; and that version.

    Raises NotFound, and InvalidRequest for bounds that exclude each other.
    """
    if minimum < 0 or (maximum is not None and maximum < minimum):
        raise InvalidRequest("The maximum of environments is below the minimum.", what="scaling")
    number = number or LATEST
    old = record.latest if number == LATEST else record.versions.get(number)
    if old is None:
        raise _no_version(record, number)
    new = replace(old, version=replace(old.version, minimum=minimum, maximum=maximum))
    if number == LATEST:
        return replace(record, latest=new), number
    return replace(record, versions={**record.versions, number: new}), number


def ordered(versions: Mapping[str, VersionRecord]) -> list[VersionRecord]:
    """By number, oldest first; those whose name is no number come before them."""
    return [versions[number] for number in sorted(versions, key=lambda number: (_rank(number), number))]


def _rank(number: str) -> int:
    return int(number) if number.isdecimal() else -1


def _is_version(qualifier: str) -> bool:
    return qualifier.isdecimal() or qualifier.startswith("$")


def _no_version(record: FunctionRecord, number: str) -> NotFound:
    return NotFound(f"The function {record.name} has no version {number}.", what="version")


def _content(record: VersionRecord) -> tuple[object, object]:
    return replace(record.version, **_NEUTRAL), record.settings  # type: ignore[arg-type]
