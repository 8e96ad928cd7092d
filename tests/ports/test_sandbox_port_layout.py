"""The sandbox port's promises about where code stands and what may change, asked of every rung."""

import os
from pathlib import Path

import pytest
from tests.support.sandboxes import BASIC_ENVIRONMENT, Rig, process

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.port import Isolation, ProcessSpec


@pytest.mark.parametrize("folder", ["/var/task", "/code", "/app"])
async def test_code_stands_where_it_is_wanted_and_is_the_working_folder(rig: Rig, folder: str) -> None:
    sandbox, listener = await rig.make(code_at=folder)
    if rig.provider.isolation is not Isolation.PROCESS:
        assert sandbox.paths["task"] == folder
    sandbox.start(ProcessSpec(name="runtime", argv=(f"{folder}/cwd",), environment=BASIC_ENVIRONMENT))
    await listener.wait_exit("runtime")
    assert listener.text == "from the code folder\n"


async def test_code_of_a_writable_sandbox_changes_for_itself_only(rig: Rig) -> None:
    sandbox, listener = await rig.make(writable=True)
    sandbox.start(process(sandbox, "change-code", name="first"))
    await listener.wait_exit("first")
    sandbox.start(process(sandbox, "cwd", name="second"))
    await listener.wait_exit("second")
    assert listener.text == "changed\nchanged\n"
    other, others = await rig.make(writable=True)
    other.start(process(other, "cwd"))
    await others.wait_exit("runtime")
    assert others.text == (rig.place.code / "message").read_text() == "from the code folder\n"


async def test_code_of_other_sandboxes_cannot_be_changed(rig: Rig) -> None:
    if rig.provider.isolation is Isolation.PROCESS:
        pytest.skip("this rung does not isolate")
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "change-code"))
    await listener.wait_exit("runtime")
    assert listener.text == "refused\n"


@pytest.mark.parametrize("as_root", [False, True], ids=["user", "root inside"])
async def test_saved_code_is_what_a_later_sandbox_can_be_made_of(rig: Rig, as_root: bool) -> None:
    sandbox, listener = await rig.make(writable=True, as_root=as_root)
    sandbox.start(process(sandbox, "change-code"))
    await listener.wait_exit("runtime")
    folder = rig.place.code_root / "saved"
    folder.mkdir()
    await sandbox.save(str(folder))
    saved = folder / "code"
    assert sorted(os.listdir(saved)) == sorted(os.listdir(rig.place.code))
    assert (saved / "message").read_text() == "changed\n"
    assert {path.stat().st_uid for path in saved.iterdir()} == {os.getuid()}
    assert (saved / "hello").stat().st_mode & 0o777 == 0o755
    later, listener = await rig.make(code=str(saved))
    later.start(process(later, "cwd"))
    await listener.wait_exit("runtime")
    assert listener.text == "changed\n"


async def test_nothing_can_be_saved_of_a_sandbox_that_cannot_change_or_is_gone(rig: Rig, tmp_path: Path) -> None:
    sandbox, _ = await rig.make()
    with pytest.raises(SandboxUnavailable):
        await sandbox.save(str(tmp_path))
    writable, _ = await rig.make(writable=True)
    await writable.destroy()
    with pytest.raises(SandboxUnavailable):
        await writable.save(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


async def test_folder_that_cannot_be_saved_to_is_named(rig: Rig, tmp_path: Path) -> None:
    sandbox, _ = await rig.make(writable=True)
    with pytest.raises(SandboxUnavailable, match="absent"):
        await sandbox.save(str(tmp_path / "absent"))
    (tmp_path / "code").mkdir()
    with pytest.raises(SandboxUnavailable, match="File exists"):
        await sandbox.save(str(tmp_path))


async def test_capabilities_tell_what_can_change(rig: Rig) -> None:
    told = {capability.name: capability.detail for capability in rig.provider.capabilities()}
    assert told["changeable directories"]
