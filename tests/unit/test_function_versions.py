"""Published versions and aliases of functions, and the spaces their names lie in."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.functions_bench import ARCHIVES, PACKED, Bench, FailingMetadata, new

from torpor.model.errors import Conflict, InvalidRequest, NotFound, PreconditionFailed, StoreUnavailable
from torpor.model.function import Alias
from torpor.service.functions import Functions


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(folder=tmp_path / "code")


@pytest.fixture
async def functions(bench: Bench) -> Functions:
    service = bench.service()
    await service.create(new(memory_mb=256, description="d", settings={"A": 1}), ARCHIVES[0])
    return service


async def test_published_version_is_a_copy_with_number_and_revision_of_its_own(
    bench: Bench, functions: Functions
) -> None:
    bench.clock.now = 200.0
    latest = functions.get("greet").latest
    version = functions.publish("greet")
    assert version.version == replace(latest.version, version="1", revision="r2")
    assert (version.description, version.settings, version.modified) == ("d", {"A": 1}, 200.0)
    assert functions.get("greet").latest == latest
    assert bench.seen[-1] == (None, version.version)


async def test_later_changes_do_not_reach_a_published_version(functions: Functions) -> None:
    functions.publish("greet", description="first")
    functions.update_configuration("greet", {"memory_mb": 512})
    await functions.update_code("greet", ARCHIVES[1])
    assert functions.resolve("greet", "1").version.memory_mb == 256
    assert functions.resolve("greet", "1").description == "first"
    assert await functions.archive_of("greet", "1") == ARCHIVES[0]
    assert await functions.archive_of("greet") == ARCHIVES[1]


async def test_versions_and_aliases_outlive_the_service(bench: Bench, functions: Functions) -> None:
    functions.publish("greet")
    functions.put_alias("greet", Alias(name="live", version="1"))
    functions.delete_version("greet", functions.publish("greet").version.version)
    again = bench.service()
    assert again.get("greet") == functions.get("greet")
    assert again.publish("greet").version.version == "3"


async def test_numbers_are_never_used_again(functions: Functions) -> None:
    for number in ("1", "2"):
        assert functions.publish("greet").version.version == number
    functions.delete_version("greet", "2")
    assert functions.publish("greet").version.version == "3"
    assert [kept.version.version for kept in functions.versions("greet")] == ["1", "3"]


async def test_dictated_number_is_taken_and_passed_by_the_next(functions: Functions) -> None:
    functions.publish("greet", number="7")
    with pytest.raises(Conflict):
        functions.publish("greet", number="7")
    functions.publish("greet", number="$LIVE")
    functions.publish("greet", number="3")
    assert functions.publish("greet").version.version == "8"
    assert [kept.version.version for kept in functions.versions("greet")] == ["$LIVE", "3", "7", "8"]


async def test_replacing_version_gets_a_new_revision_and_ends_the_old_one(bench: Bench, functions: Functions) -> None:
    functions.publish("greet", number="$LIVE", replacing=True, minimum=3)
    old = functions.scale("greet", "$LIVE", 2, 5)
    new = functions.publish("greet", number="$LIVE", replacing=True, minimum=3)
    assert old.version.revision != new.version.revision
    assert (new.version.minimum, new.version.maximum) == (2, 5)
    assert bench.seen[-1] == (old.version, new.version)
    assert functions.versions("greet") == [new]


async def test_publishing_unless_changed_gives_the_last_version_again(bench: Bench, functions: Functions) -> None:
    first = functions.publish("greet", unless_changed=True, minimum=3)
    functions.scale("greet", "1", 5, None)
    told = len(bench.seen)
    again = functions.publish("greet", unless_changed=True, description="other", minimum=3)
    assert (again.version.revision, again.description) == (first.version.revision, "d")
    assert len(bench.seen) == told
    functions.update_configuration("greet", {"settings": {"A": 2}})
    assert functions.publish("greet", unless_changed=True).version.version == "2"
    await functions.update_code("greet", ARCHIVES[1])
    assert functions.publish("greet", unless_changed=True).version.version == "3"


async def test_publishing_checks_what_the_caller_expects(functions: Functions) -> None:
    latest = functions.get("greet").latest.version
    with pytest.raises(PreconditionFailed):
        functions.publish("greet", expected_revision="r0")
    with pytest.raises(InvalidRequest) as caught:
        functions.publish("greet", expected_digest="0" * 64)
    assert caught.value.what == "digest" and functions.versions("greet") == []
    assert functions.publish("greet", expected_revision=latest.revision, expected_digest=latest.code.digest)


async def test_qualifiers_are_found_and_missing_ones_say_what_is_missing(functions: Functions) -> None:
    functions.publish("greet")
    functions.put_alias("greet", Alias(name="live", version="1"))
    latest = functions.get("greet").latest
    assert functions.resolve("greet", "") == functions.resolve("greet", "$LATEST") == latest
    assert functions.resolve("greet", "live") == functions.resolve("greet", "1")
    for name, qualifier, what in (("other", "", "function"), ("greet", "9", "version"), ("greet", "x", "alias")):
        with pytest.raises(NotFound) as caught:
            functions.resolve(name, qualifier)
        assert caught.value.what == what


async def test_alias_divides_invocations_by_its_weights(bench: Bench, functions: Functions) -> None:
    functions.publish("greet")
    functions.publish("greet")
    functions.put_alias("greet", Alias(name="live", version="1", weights={"2": 0.25}))
    bench.draws += [0.0, 0.2499, 0.25, 0.999]
    assert [functions.resolve("greet", "live").version.version for _ in range(4)] == ["2", "2", "1", "1"]


async def test_alias_is_replaced_under_a_new_revision(functions: Functions) -> None:
    functions.publish("greet")
    first = functions.put_alias("greet", Alias(name="live", version="1"))
    with pytest.raises(PreconditionFailed):
        functions.put_alias("greet", Alias(name="live", version="$LATEST"), expected_revision="r0")
    second = functions.put_alias("greet", Alias(name="live", version="$LATEST"), expected_revision=first.revision)
    assert first.revision != second.revision
    assert functions.alias("greet", "live") == second and functions.aliases("greet") == [second]
    functions.delete_alias("greet", "live")
    assert functions.aliases("greet") == []
    for call in (functions.alias, functions.delete_alias):
        with pytest.raises(NotFound):
            call("greet", "live")


@pytest.mark.parametrize(
    ("alias", "error"),
    [
        (Alias(name="live", version="9"), NotFound),
        (Alias(name="live", version="1", weights={"9": 0.5}), NotFound),
        (Alias(name="live", version="1", weights={"1": 1.5}), InvalidRequest),
        (Alias(name="7", version="1"), InvalidRequest),
    ],
)
async def test_alias_that_could_not_be_followed_is_refused(
    functions: Functions, alias: Alias, error: type[Exception]
) -> None:
    functions.publish("greet")
    with pytest.raises(error):
        functions.put_alias("greet", alias)
    assert functions.aliases("greet") == []


async def test_version_that_an_alias_refers_to_stays(bench: Bench, functions: Functions) -> None:
    version = functions.publish("greet").version
    functions.put_alias("greet", Alias(name="live", version="$LATEST", weights={"1": 0.1}))
    with pytest.raises(Conflict, match="live"):
        functions.delete_version("greet", "1")
    functions.delete_alias("greet", "live")
    functions.delete_version("greet", "1")
    assert bench.seen[-1] == (version, None)
    with pytest.raises(NotFound):
        functions.delete_version("greet", "1")


async def test_deleted_function_takes_its_versions_along(bench: Bench, functions: Functions) -> None:
    versions = [functions.get("greet").latest.version, *(functions.publish("greet").version for _ in range(2))]
    functions.delete("greet")
    assert bench.seen[-3:] == [(version, None) for version in versions]
    assert list(bench.metadata.functions()) == []


async def test_sweep_keeps_the_code_of_published_versions(functions: Functions) -> None:
    functions.publish("greet")
    await functions.update_code("greet", ARCHIVES[1])
    await functions.sweep_code()
    assert await functions.archive_of("greet", "1") == ARCHIVES[0]
    assert functions.code_usage() == (2 * PACKED, 1)


async def test_scaling_keeps_the_revision_and_is_told(bench: Bench, functions: Functions) -> None:
    version = functions.publish("greet").version
    told = len(bench.seen)
    scaled = functions.scale("greet", "1", 2, 5).version
    assert scaled == replace(version, minimum=2, maximum=5) and scaled.key == version.key
    assert functions.resolve("greet", "1").version == scaled
    assert bench.scaled == [scaled] and len(bench.seen) == told
    with pytest.raises(InvalidRequest):
        functions.scale("greet", "1", 3, 2)
    with pytest.raises(NotFound):
        functions.scale("greet", "9", 0, None)


async def test_spaces_do_not_see_each_other(functions: Functions) -> None:
    for name in ("fc/greet", "fc/a", "web/a", "a"):
        await functions.create(new(name), ARCHIVES[0])
    assert functions.names() == ["a", "greet"]
    assert functions.names("fc") == ["fc/a", "fc/greet"]
    assert functions.names(None) == ["a", "fc/a", "fc/greet", "greet", "web/a"]
    records, following = functions.page(None, 1, "fc")
    assert ([record.name for record in records], following) == (["fc/a"], "fc/a")
    assert [record.name for record in functions.page(following, 1, "fc")[0]] == ["fc/greet"]
    assert functions.code_usage("web") == (PACKED, 1)


async def test_failing_store_publishes_nothing_and_announces_nothing(bench: Bench, functions: Functions) -> None:
    functions.publish("greet")
    before, told = functions.get("greet"), len(bench.seen)
    assert isinstance(bench.metadata, FailingMetadata)
    bench.metadata.broken = True
    for call in (
        lambda: functions.publish("greet"),
        lambda: functions.delete_version("greet", "1"),
        lambda: functions.put_alias("greet", Alias(name="live", version="1")),
        lambda: functions.scale("greet", "1", 1, 1),
    ):
        with pytest.raises(StoreUnavailable):
            call()
    assert functions.get("greet") == before and (len(bench.seen), bench.scaled) == (told, [])
