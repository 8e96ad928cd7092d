"""Changeable directories, root inside, and what is kept of them, in real sandboxes."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.linux_sandbox import (
    PYTHON,
    Linux,
    answer,
    images,
    open_linux,
    python_missing,
    python_process,
    run_shell,
    shell,
)
from tests.support.services import write_wheel

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.linux import host
from torpor.sandbox.linux.sandbox import LinuxSandbox
from torpor.sandbox.port import ProcessSpec

pytestmark = pytest.mark.privileged
PLACES = "/code /etc /usr/local/bin /usr/lib /var /var/tmp /opt /home /root /srv /mnt /run /dev/shm /tmp"


@pytest_asyncio.fixture(params=["root", "root-unmapped", "rootless"])
async def linux(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Linux]:
    """Every way to make directories changeable: ids mapped, kernels that cannot, an ordinary account."""
    if request.param == "root-unmapped":
        monkeypatch.setattr(host, "maps_ids", lambda: False)
    async with open_linux(rootless=request.param == "rootless") as opened:
        yield opened


@pytest_asyncio.fixture
async def mapped() -> AsyncIterator[Linux]:
    if not host.maps_ids():
        pytest.skip("this kernel does not map ids")
    async with open_linux() as opened:
        yield opened


async def builder(linux: Linux, **settings: object) -> LinuxSandbox:
    values = {"as_root": True, "writable": True, "code_at": "/code", "memory_mb": 512, **settings}
    sandbox, listener = await linux.make("server", **values)
    sandbox.listener = listener  # type: ignore[attr-defined]
    return sandbox


async def run(sandbox: LinuxSandbox, script: str) -> str:
    environment = {**images().resolve("server").environment, "HOME": "/root"}
    listener = sandbox.listener  # type: ignore[attr-defined]
    name, before = f"run-{len(listener.exits)}", len(listener.text)
    sandbox.start(ProcessSpec(name=name, argv=("/bin/sh", "-c", script), environment=environment))
    exit = await listener.wait_exit(name, 60.0)
    assert exit.code == 0, (exit, listener.text)
    return str(listener.text[before:])


async def saved(linux: Linux, sandbox: LinuxSandbox) -> Path:
    folder = linux.folder / "code" / "saved"
    folder.mkdir()
    await sandbox.save(str(folder))
    await sandbox.destroy()
    return folder


@pytest.mark.parametrize("as_root", [False, True], ids=["user", "root inside"])
async def test_usual_directories_of_a_writable_sandbox_can_be_changed(linux: Linux, as_root: bool) -> None:
    sandbox = await builder(linux, as_root=as_root)
    await run(sandbox, f"for f in {PLACES}; do echo new > $f/new && grep -q new $f/new || exit 1; done")
    await run(sandbox, "echo 'x:x:1:1::/:' >> /etc/passwd && rm -r /etc/ssl && mkdir /etc/ssl && ! ls /etc/ssl/*")
    other = await builder(linux, as_root=as_root)
    kept = "for f in /etc /usr/lib /var /home /code; do test -e $f/new && exit 1; done; ls /etc/ssl/* > /dev/null"
    await run(other, kept)
    assert not os.path.exists("/usr/lib/new")
    assert not os.path.exists("/etc/new")


async def test_changes_outlive_the_processes_and_end_with_the_sandbox(linux: Linux) -> None:
    sandbox = await builder(linux)
    await run(sandbox, "echo kept > /etc/kept")
    sandbox.kill_all()
    assert await run(sandbox, "cat /etc/kept") == "kept\n"


async def test_changes_are_limited_with_tmp(linux: Linux) -> None:
    sandbox = await builder(linux, tmp_mb=32)
    text = await run(sandbox, "head -c 40M /dev/zero 2>&1 > /usr/local/big | cat; rm /usr/local/big; echo ok > /tmp/x")
    assert "No space left on device" in text


async def test_shared_memory_works_in_a_writable_sandbox_only(linux: Linux) -> None:
    program = "from multiprocessing import shared_memory as s; m = s.SharedMemory(create=True, size=10); m.unlink()"
    await run(await builder(linux, as_root=False), f'/usr/bin/python3 -c "{program}"')
    sandbox = await builder(linux, as_root=False, writable=False)
    assert "Permission denied" in await run(sandbox, f'/usr/bin/python3 -c "{program}" 2>&1; exit 0')


async def test_root_inside_is_root_with_few_capabilities_and_the_filter(linux: Linux) -> None:
    sandbox = await builder(linux, writable=False)
    text = await run(sandbox, "id -u; id -g; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
    lines = text.splitlines()
    status = dict(line.split(":\t") for line in lines[2:])
    assert lines[:2] == ["0", "0"]
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"00000000000004fb"}
    assert {status[name] for name in ("CapInh", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


async def test_root_inside_binds_low_ports_and_others_do_not(linux: Linux) -> None:
    program = "import socket; socket.create_server((str(), 80)); print(80)"
    bind = f"/usr/bin/python3 -c '{program}' 2>&1 | tail -1"
    assert await run(await builder(linux), bind) == "80\n"
    assert "Permission denied" in await run(await builder(linux, as_root=False), bind)


async def test_root_inside_changes_owners_and_becomes_others(mapped: Linux) -> None:
    sandbox = await builder(mapped)
    script = (
        "touch x; chown nobody:33 x; stat -c %u:%g x; chmod 600 /usr/bin/env; setpriv --reuid 33 --clear-groups id -u"
    )
    assert await run(sandbox, script) == "65534:33\n33\n"
    assert os.stat("/usr/bin/env").st_mode & 0o777 == 0o755


async def test_root_inside_is_an_unprivileged_user_on_the_host(mapped: Linux) -> None:
    sandbox = await builder(mapped)
    sandbox.start(shell("echo up; sleep 60", "sleeper"))
    await sandbox.listener.wait_text("up")  # type: ignore[attr-defined]
    owners = {os.stat(f"/proc/{pid}").st_uid for pid in sandbox.statistics().processes}
    assert min(owners) >= 1_000_000_000
    other = await builder(mapped)
    other.start(shell("echo up; sleep 60", "sleeper"))
    await other.listener.wait_text("up")  # type: ignore[attr-defined]
    others = {os.stat(f"/proc/{pid}").st_uid for pid in other.statistics().processes}
    assert min(abs(a - b) for a in owners for b in others) >= 65_536


async def test_files_of_root_inside_have_unprivileged_owners_outside(mapped: Linux) -> None:
    sandbox = await builder(mapped)
    await run(sandbox, "cp /bin/true /usr/local/bin/true; chmod 4755 /usr/local/bin/true; touch /tmp/mine")
    sandbox.start(shell("echo up; sleep 60", "sleeper"))
    await sandbox.listener.wait_text("up")  # type: ignore[attr-defined]
    pid = max(sandbox.statistics().processes)
    for path in ("usr/local/bin/true", "tmp/mine"):
        assert os.stat(f"/proc/{pid}/root/{path}").st_uid >= 1_000_000_000


async def test_root_inside_cannot_mount_trace_outwards_or_see_others(linux: Linux) -> None:
    sandbox = await builder(linux)
    calls = ("unshare -r true", "mount -t tmpfs x /tmp", "/usr/sbin/chroot / true", "mknod /tmp/d b 8 0")
    text = await run(sandbox, "; ".join(f"{call} 2>&1 | head -1" for call in calls))
    assert len(text.splitlines()) == len(calls)
    assert all("ermi" in line or "superuser" in line or "denied" in line for line in text.splitlines()), text
    assert "must be root" in await run(sandbox, "hostname x 2>&1; exit 0")
    assert "1" not in (await run(sandbox, "ls /proc")).split()
    assert "No such file" in await run(sandbox, "ls -d /proc/1 2>&1; exit 0")
    # Below it: forbidden as long as the kernel remembers that pid 1 has looked at itself there, else missing as well.
    hidden = ("No such file or directory\n", "Operation not permitted\n")
    assert (await run(sandbox, "cat /proc/1/environ 2>&1; exit 0")).endswith(hidden)
    assert await run(sandbox, "(kill -9 1; kill -INT 1; ls -A /run/torpor) 2> /dev/null; echo alive") == "alive\n"
    other = await builder(linux)
    other.start(shell("echo up; exec sleep 61", "sleeper"))
    assert "sleep 61" not in await run(sandbox, "ps -eo args=")


async def test_root_inside_finds_no_secret_of_the_host(linux: Linux) -> None:
    sandbox = await builder(linux)
    text = await run(sandbox, "cat /etc/shadow /etc/ssl/private/* /root/.ssh/* 2>&1; ls -A /root /home; exit 0")
    assert all("No such file" in line or line in ("", "/root:", "/home:") for line in text.splitlines()), text


async def test_saved_changes_show_in_a_later_sandbox_read_only(linux: Linux) -> None:
    sandbox = await builder(linux)
    await run(sandbox, "echo '#!/bin/sh\necho tool' > /usr/local/bin/tool; chmod 755 /usr/local/bin/tool")
    await run(sandbox, "echo setting > /etc/setting; rm -r /etc/ssl; mkdir /etc/ssl; echo built > built")
    folder = await saved(linux, sandbox)
    assert {path.lstat().st_uid for path in folder.rglob("*")} == {os.geteuid()}
    later = await builder(
        linux, as_root=False, writable=False, code=str(folder / "code"), system=str(folder / "system")
    )
    assert await run(later, "tool; cat /etc/setting built; ls -A /etc/ssl") == "tool\nsetting\nbuilt\n"
    text = await run(
        later, "for f in /etc /usr /usr/local/bin /var /home /root /code; do touch $f/x 2>&1; done; exit 0"
    )
    assert text.count("Read-only file system") == 7
    assert await run(later, "/usr/bin/python3 -c 'print(6 * 7)'") == "42\n"


async def test_package_installed_by_root_inside_is_there_for_a_later_service(linux: Linux) -> None:
    if "pip" not in images().resolve("server").commands:
        pytest.skip("no pip was found on this host")
    code = Path(linux.code("packages", {}))
    write_wheel(code / "demo-1.0-py3-none-any.whl")
    sandbox = await builder(linux, code=str(code))
    await run(sandbox, "pip install --no-index --quiet ./demo-1.0-py3-none-any.whl && demo-tool")
    folder = await saved(linux, sandbox)
    later = await builder(
        linux, as_root=False, writable=False, code=str(folder / "code"), system=str(folder / "system")
    )
    assert await run(later, "demo-tool; python -c 'import demo; demo.main()'") == "installed\n" * 2
    refused = await run(
        later, "cd /tmp; HOME=/nowhere pip install --no-index /code/*.whl --force-reinstall 2>&1; exit 0"
    )
    assert "Read-only file system" in refused or "Permission denied" in refused


async def test_saved_changes_can_be_changed_further(linux: Linux) -> None:
    sandbox = await builder(linux)
    await run(sandbox, "echo one > /etc/setting; rm /etc/services; echo one > /usr/local/share/setting")
    folder = await saved(linux, sandbox)
    later = await builder(linux, system=str(folder / "system"))
    script = "cat /usr/local/share/setting; echo two >> /etc/setting; cat /etc/setting; ls /etc/services 2>&1; exit 0"
    text = await run(later, script)
    assert text.startswith("one\none\ntwo\n")
    assert "No such file" in text


async def test_file_the_build_kept_for_root_cannot_be_read_by_the_service(mapped: Linux) -> None:
    sandbox = await builder(mapped)
    await run(sandbox, "umask 077; echo secret > secret; chmod 755 .")
    folder = await saved(mapped, sandbox)
    service = await builder(mapped, as_root=False, writable=False, code=str(folder / "code"))
    assert "Permission denied" in await run(service, "cat secret 2>&1; exit 0")
    assert "Operation not permitted" in await run(service, "chown 33 /tmp 2>&1; exit 0")


async def test_hostile_tree_is_saved_without_its_teeth(mapped: Linux) -> None:
    sandbox = await builder(mapped)
    await run(sandbox, "ln -s /etc/shadow link; mkfifo pipe; cp /bin/true set; chmod 6755 set; truncate -s 1T sparse")
    await run(sandbox, "ln set hard; mkdir deep; ln -s ../../../../etc deep/up; touch \"$(printf 'a\\nb')\"")
    folder = await saved(mapped, sandbox)
    code = folder / "code"
    assert os.readlink(code / "link") == "/etc/shadow"
    assert sorted(os.listdir(code)) == ["a\nb", "deep", "hard", "link", "set", "sparse"]
    assert (code / "set").stat().st_mode & 0o7777 == 0o755
    assert (code / "set").stat().st_ino == (code / "hard").stat().st_ino
    assert ((code / "sparse").stat().st_size, (code / "sparse").stat().st_blocks) == (1 << 40, 0)


async def test_tree_too_deep_to_save_is_refused(mapped: Linux) -> None:
    sandbox = await builder(mapped)
    await run(sandbox, "i=0; while [ $i -lt 300 ]; do mkdir d; cd d; i=$((i+1)); done")
    (mapped.folder / "code" / "deep").mkdir()
    with pytest.raises(SandboxUnavailable, match="nested"):
        await sandbox.save(str(mapped.folder / "code" / "deep"))


async def test_sandbox_ended_while_it_is_saved_the_caller_is_told(mapped: Linux) -> None:
    sandbox = await builder(mapped)
    await run(sandbox, "head -c 200M /dev/zero > big")
    (mapped.folder / "code" / "half").mkdir()
    saving = asyncio.create_task(sandbox.save(str(mapped.folder / "code" / "half")))
    await asyncio.sleep(0.01)
    await sandbox.destroy()
    with pytest.raises(SandboxUnavailable):
        await asyncio.wait_for(saving, 5)


async def test_code_place_or_system_that_is_not_allowed_is_refused(linux: Linux) -> None:
    with pytest.raises(SandboxUnavailable, match="/etc"):
        await linux.make(code_at="/etc")
    with pytest.raises(SandboxUnavailable, match="not below"):
        await linux.make(system="/etc")


async def test_sandboxes_with_root_inside_are_prepared_apart(mapped: Linux) -> None:
    await builder(mapped)
    await asyncio.sleep(1.0)
    assert mapped.provider.statistics().prepared == {"server+root": 1}
    sandbox, listener = await mapped.make("server")
    assert await run_shell(sandbox, listener, "id -u") == "993\n"


@pytest.mark.skipif(python_missing(), reason="the Python runtime's client is not installed")
async def test_cloned_interpreter_can_be_root_inside_with_changeable_directories(linux: Linux) -> None:
    source = "import os\nfor folder in ('/code', '/var/lang/lib', '/usr/lib'): open(f'{folder}/new', 'w').close()\n"
    source += "def handler(event, context): return [os.getuid(), os.getcwd()]"
    code = linux.code("clone", {"app.py": source})
    sandbox, _ = await linux.make(PYTHON, code=code, as_root=True, writable=True, code_at="/code")
    sandbox.start(python_process(sandbox, clone=True, LAMBDA_TASK_ROOT="/code"))
    assert await answer(sandbox) == b'[0, "/code"]'
