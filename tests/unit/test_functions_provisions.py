"""Settings for environments that are kept initialised: where they stand, what follows them, what refuses them."""

from pathlib import Path

import pytest
from tests.support.functions_bench import ARCHIVES, Bench, FailingMetadata, new

from torpor.model.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from torpor.model.function import Alias
from torpor.model.provision import Provision
from torpor.service.functions import Functions
from torpor.service.provisions import provisions, total


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(folder=tmp_path / "code")


@pytest.fixture
async def functions(bench: Bench) -> Functions:
    """One function with versions 1 and 2, and the alias `live` on the first."""
    service = bench.service()
    await service.create(new(memory_mb=256), ARCHIVES[0])
    for _ in range(2):
        service.publish("greet")
    service.put_alias("greet", Alias(name="live", version="1"))
    bench.scaled.clear()
    return service


def minimums(functions: Functions) -> dict[str, int]:
    return {kept.version.version: kept.version.minimum for kept in functions.versions("greet")}


def told(bench: Bench) -> list[tuple[str, int]]:
    return [(version.version, version.minimum) for version in bench.scaled]


@pytest.mark.parametrize("qualifier", ["1", "live"])
async def test_setting_makes_the_versions_minimum_and_keeps_its_revision(
    bench: Bench, functions: Functions, qualifier: str
) -> None:
    before = functions.resolve("greet", "1").version.key
    assert functions.provision("greet", qualifier, 3) == Provision(number=3, modified=100.0)
    assert (minimums(functions), told(bench)) == ({"1": 3, "2": 0}, [("1", 3)])
    assert functions.resolve("greet", "1").version.key == before
    functions.provision("greet", qualifier, 3)
    assert told(bench) == [("1", 3), ("1", 3)], "asked for again, it is tried again"
    functions.end_provision("greet", qualifier)
    functions.end_provision("greet", qualifier)
    assert (minimums(functions), told(bench)[2:]) == ({"1": 0, "2": 0}, [("1", 0)])
    assert total(functions.get("greet")) == 0


async def test_settings_outlive_the_service(bench: Bench, functions: Functions) -> None:
    functions.provision("greet", "live", 2)
    functions.provision("greet", "2", 1)
    again = bench.service()
    assert again.get("greet") == functions.get("greet")
    assert minimums(again) == {"1": 2, "2": 1} and again.total_reserved() == 3
    assert [(qualifier, version) for qualifier, version, _ in provisions(again.get("greet"))] == [
        ("2", "2"),
        ("live", "1"),
    ]


async def test_alias_takes_its_setting_along_and_the_version_left_is_told_first(
    bench: Bench, functions: Functions
) -> None:
    functions.provision("greet", "live", 2)
    functions.put_alias("greet", Alias(name="live", version="2", weights={"1": 0.5}))
    assert told(bench)[1:] == [("1", 0), ("2", 2)]
    functions.delete_alias("greet", "live")
    assert told(bench)[3:] == [("2", 0)]
    functions.put_alias("greet", Alias(name="live", version="1"))
    assert minimums(functions) == {"1": 0, "2": 0}, "another alias of the same name"


async def test_what_is_set_by_other_means_stays(bench: Bench, functions: Functions) -> None:
    functions.scale("greet", "2", 5, None)
    functions.provision("greet", "live", 2)
    functions.end_provision("greet", "live")
    assert minimums(functions) == {"1": 0, "2": 5}


async def test_version_that_is_kept_initialised_counts_as_unchanged(functions: Functions) -> None:
    functions.provision("greet", "2", 1)
    assert functions.publish("greet", unless_changed=True).version.version == "2"
    assert functions.publish("greet").provision is None


@pytest.mark.parametrize(
    ("qualifier", "error", "what"),
    [
        ("", InvalidRequest, "unpublished"),
        ("$LATEST", InvalidRequest, "unpublished"),
        ("newest", InvalidRequest, "unpublished"),
        ("9", NotFound, "version"),
        ("blue", NotFound, "alias"),
        ("1", Conflict, "provisioned alias"),
        ("other", Conflict, "provisioned version"),
    ],
)
async def test_setting_that_cannot_be_is_refused_and_changes_nothing(
    bench: Bench, functions: Functions, qualifier: str, error: type[Exception], what: str
) -> None:
    functions.put_alias("greet", Alias(name="newest", version="$LATEST"))
    functions.put_alias("greet", Alias(name="other", version="1"))
    functions.provision("greet", "live", 1)
    before = functions.get("greet")
    with pytest.raises(error) as caught:
        functions.provision("greet", qualifier, 1)
    assert getattr(caught.value, "what", "") == what
    assert functions.get("greet") == before and told(bench) == [("1", 1)]


async def test_alias_does_not_move_where_its_setting_cannot_be(functions: Functions) -> None:
    functions.provision("greet", "live", 1)
    functions.provision("greet", "2", 1)
    for version, error in (("2", Conflict), ("$LATEST", InvalidRequest)):
        with pytest.raises(error):
            functions.put_alias("greet", Alias(name="live", version=version))
    assert functions.alias("greet", "live").version == "1"


async def test_settings_count_within_a_reservation_or_take_from_the_account(bench: Bench, functions: Functions) -> None:
    functions.provision("greet", "1", 900)
    with pytest.raises(InvalidRequest) as caught:
        functions.provision("greet", "2", 1)
    assert (caught.value.what, caught.value.limit) == ("unreserved", 100)
    with pytest.raises(InvalidRequest) as caught:
        functions.provision("greet", "2", 101)
    assert (caught.value.what, caught.value.limit) == ("over account", 100)
    functions.provision("greet", "1", 5)
    functions.reserve("greet", 6)
    assert functions.total_reserved() == 6
    with pytest.raises(InvalidRequest) as caught:
        functions.provision("greet", "2", 2)
    assert (caught.value.what, caught.value.limit) == ("over reserved", 6)
    functions.provision("greet", "2", 1)
    with pytest.raises(InvalidRequest) as caught:
        functions.reserve("greet", 5)
    assert (caught.value.what, caught.value.limit) == ("under provisioned", 6)
    functions.reserve("greet", None)
    assert functions.total_reserved() == 6
    smaller = bench.service(account=101)
    smaller.provision("greet", "1", 4)
    with pytest.raises(InvalidRequest):
        smaller.provision("greet", "1", 5)


async def test_deleted_version_and_function_take_their_settings_along(functions: Functions) -> None:
    functions.provision("greet", "2", 4)
    functions.delete_version("greet", "2")
    assert functions.total_reserved() == 0
    functions.provision("greet", "live", 4)
    functions.delete("greet")
    assert functions.total_reserved() == 0


async def test_failing_store_sets_and_announces_nothing(bench: Bench, functions: Functions) -> None:
    functions.provision("greet", "live", 1)
    before = functions.get("greet")
    assert isinstance(bench.metadata, FailingMetadata)
    bench.metadata.broken = True
    for call in (
        lambda: functions.provision("greet", "live", 2),
        lambda: functions.end_provision("greet", "live"),
        lambda: functions.put_alias("greet", Alias(name="live", version="2")),
        lambda: functions.delete_alias("greet", "live"),
    ):
        with pytest.raises(StoreUnavailable):
            call()
    assert functions.get("greet") == before and told(bench) == [("1", 1)]
