"""The layer service over real stores."""

import time
from pathlib import Path

import pytest
from tests.support.functions import archive

from torpor.model.account import PackageLimits, ReservationLimits
from torpor.model.errors import InvalidPackage, NotFound, TooLarge
from torpor.service.functions import Functions, NewFunction
from torpor.service.layers import Layers, NewLayer
from torpor.store.code import DiskCodeStore
from torpor.store.metadata import SqlMetadataStore

FIRST, SECOND = archive({"extensions/one": "1"}), archive({"extensions/two": "2"})
TOOLS = NewLayer(name="tools")


class Clock:
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class Account:
    """Both services over one folder; another one over the same folder is a restart."""

    def __init__(self, folder: Path) -> None:
        self.metadata = SqlMetadataStore(str(folder / "db"))
        self.code = DiskCodeStore(str(folder / "code"))
        self.functions = Functions(
            self.metadata,
            self.code,
            clock=Clock(),
            packages=PackageLimits(zipped=10_000, unpacked=10_000),
            reservations=ReservationLimits(account=10, unreserved_minimum=0),
        )
        self.layers = Layers(self.metadata, self.functions.packages, Clock())

    async def sweep(self) -> None:
        await self.functions.sweep_code(self.layers.code_in_use)

    async def use(self, *archives: bytes) -> None:
        """Make a function with these packages as its layers."""
        codes = [(await self.layers.publish(TOOLS, archive)).code for archive in archives]
        new = NewFunction(
            name="f", resource="f", contract="lambda", runtime="provided", handler="h",
            configuration={"layers": tuple(codes)},
        )  # fmt: skip
        await self.functions.create(new, archive({"bootstrap": "x"}))


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(tmp_path)


async def test_numbers_go_on_after_a_restart_even_if_the_newest_version_was_deleted(
    account: Account, tmp_path: Path
) -> None:
    await account.layers.publish(TOOLS, FIRST)
    await account.layers.publish(TOOLS, SECOND)
    account.layers.delete("tools", 2)
    account.metadata.close()

    again = Account(tmp_path)
    assert [layer.number for layer in again.layers.versions("tools")] == [1]
    assert (await again.layers.publish(TOOLS, SECOND)).number == 3
    assert await again.layers.archive_of("tools", 1) == FIRST
    again.metadata.close()


async def test_deleted_version_is_not_found_and_a_layer_without_versions_not_listed(account: Account) -> None:
    await account.layers.publish(TOOLS, FIRST)
    assert account.layers.names() == ["tools"]
    account.layers.delete("tools", 1)
    account.layers.delete("tools", 7)
    with pytest.raises(NotFound):
        account.layers.get("tools", 1)
    assert account.layers.names() == []
    account.metadata.close()


async def test_sweep_keeps_published_layers_and_those_that_functions_use(account: Account) -> None:
    await account.use(FIRST)
    kept, unused = account.layers.get("tools", 1), await account.layers.publish(TOOLS, SECOND)
    await account.sweep()
    assert Path(account.code.folder(unused.code)).is_dir()
    account.layers.delete("tools", 1)
    account.layers.delete("tools", 2)
    await account.sweep()
    assert Path(account.code.folder(kept.code), "extensions", "one").is_file()
    assert not Path(account.code.folder(unused.code)).exists()
    account.metadata.close()


async def test_package_that_cannot_be_kept_takes_no_number(account: Account) -> None:
    with pytest.raises(InvalidPackage):
        await account.layers.publish(TOOLS, b"no zip")
    with pytest.raises(TooLarge):
        await account.layers.publish(TOOLS, archive({"big": b"x" * 20_000}))
    assert (await account.layers.publish(TOOLS, FIRST)).number == 1
    account.metadata.close()
