"""What a function finds in a real sandbox, and what it cannot reach."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from tests.support.linux_sandbox import PROVIDED, Linux, images, open_linux, run_shell, shell

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.port import ProcessExit, ProcessSpec

pytestmark = pytest.mark.privileged


@pytest_asyncio.fixture(params=[False, True], ids=["root", "rootless"])
async def linux(request: pytest.FixtureRequest) -> AsyncIterator[Linux]:
    async with open_linux(rootless=request.param) as opened:
        yield opened


async def test_identity_is_an_unprivileged_user_without_any_capability(linux: Linux) -> None:
    text = await linux.shell("id -un; id -u; id -G; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status")
    lines = text.split("\n")
    assert lines[:2] == ["sbx_user1051", "993"]
    assert lines[2].split()[0] == "990"
    status = dict(line.split(":\t") for line in lines[3:] if line)
    assert {value for name, value in status.items() if name.startswith("Cap")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


async def test_root_rung_processes_run_as_a_user_of_their_own_on_the_host(linux: Linux) -> None:
    if linux.provider.isolation.value != "sandbox":
        pytest.skip("rootless sandboxes share their owner's user")
    owners = set()
    for _ in range(2):
        sandbox, listener = await linux.make()
        sandbox.start(shell("echo up; sleep 60"))
        await listener.wait_text("up")
        owners |= {os.stat(f"/proc/{pid}").st_uid for pid in sandbox.statistics().processes}
    assert len(owners) == 2
    assert min(owners) >= 700_000


async def test_file_system_is_read_only_but_for_tmp(linux: Linux) -> None:
    script = """for f in / /etc /usr /opt /var/task /var/tmp /home /run /dev /proc; do
        (: > $f/x) 2>/dev/null && echo "writable: $f"; done; echo ok > /tmp/x && cat /tmp/x; exit 0"""
    assert await linux.shell(script) == "ok\n"


async def test_code_folder_the_error_is_that_of_a_read_only_file_system(linux: Linux) -> None:
    assert "Read-only file system" in await linux.shell("touch /var/task/x 2>&1; exit 0")


async def test_shared_memory_folder_the_error_is_permission_denied(linux: Linux) -> None:
    text = await linux.shell("touch /dev/shm/x 2>&1; stat -c %a /dev/shm")
    assert "Permission denied" in text
    assert text.endswith("555\n")


async def test_host_files_environment_and_processes_are_not_there(linux: Linux) -> None:
    script = """ls -A /root /home /run/torpor /mnt; ls / ; env; ls /proc | grep -E '^[0-9]+$' | wc -l; ps -eo comm="""
    text = await linux.shell(script)
    assert str(linux.folder) not in text
    assert os.getcwd() not in text and os.path.basename(os.getcwd()) not in text.split()
    assert "python" not in text
    assert not {"work", "boot", "media"} & set(text.split())


async def test_mounts_name_nothing_of_the_host_outside_the_root(linux: Linux) -> None:
    text = await linux.shell("cat /proc/self/mountinfo")
    points = [line.split()[4] for line in text.splitlines()]
    assert "/run/torpor" not in points
    assert not any(point.startswith("/sys") for point in points)
    assert points.count("/proc") == 1


async def test_processes_of_one_sandbox_see_each_other_and_nobody_else(linux: Linux) -> None:
    sandbox, listener = await linux.make()
    sandbox.start(shell("echo up; sleep 60", "first"))
    await listener.wait_text("up")
    other, others = await linux.make()
    other.start(shell("echo up; sleep 61"))
    await others.wait_text("up")
    text = await run_shell(sandbox, listener, "ps -eo args=", "second")
    assert "sleep 60" in text
    assert "sleep 61" not in text
    assert len(text.splitlines()) == 4


async def test_forbidden_calls_fail_calmly(linux: Linux) -> None:
    calls = ("unshare -r true", "mount -t tmpfs x /tmp", "/usr/sbin/chroot / true")
    text = await linux.shell("; ".join(f"{call} 2>&1 | head -1" for call in calls))
    assert len(text.splitlines()) == 3
    assert all("not permitted" in line or "superuser" in line or "denied" in line for line in text.splitlines()), text


async def test_keeper_cannot_be_harmed_from_inside(linux: Linux) -> None:
    sandbox, listener = await linux.make()
    text = await run_shell(sandbox, listener, "kill -9 1 2>&1; kill -9 -1; cat /proc/1/environ 2>&1; echo still here")
    assert text.endswith("still here\n")
    assert await run_shell(sandbox, listener, "echo again", "next") == "again\n"
    assert listener.deaths == []


async def test_names_of_the_sandbox_resolve_to_itself(linux: Linux) -> None:
    names = "localhost sandbox sandbox.localdomain host.torpor.internal"
    text = await linux.shell(f"for n in {names}; do getent ahostsv4 $n; done")
    addresses = [line.split()[0] for line in text.splitlines() if "STREAM" in line]
    assert addresses == ["127.0.0.1"] * 3 + ["169.254.100.2"]


async def test_layers_are_merged_and_later_ones_win(linux: Linux) -> None:
    first = linux.code("first", {"both": "first", "one": "1"})
    second = linux.code("second", {"both": "second", "two": "2"})
    assert await linux.shell("cat /opt/both /opt/one /opt/two", layers=(first, second)) == "second12"


async def test_limits_of_a_process_are_those_asked_for(linux: Linux) -> None:
    assert await linux.shell("ulimit -n; ulimit -c; ulimit -l", files=512) == "512\n0\n64\n"


async def test_working_folder_that_is_missing_the_reason_is_told(linux: Linux) -> None:
    sandbox, listener = await linux.make()
    sandbox.start(replace(shell("true"), cwd="/nowhere"))
    assert "/nowhere" in (await listener.wait_exit("shell")).start_error


@pytest.mark.parametrize("files", [{"bad": "not a program"}, {}])
async def test_program_that_cannot_be_executed_the_reason_is_told(linux: Linux, files: dict[str, str]) -> None:
    sandbox, listener = await linux.make(code=linux.code("bad", files))
    sandbox.start(ProcessSpec(name="bad", argv=("/var/task/bad",), environment={}))
    error = (await listener.wait_exit("bad")).start_error
    assert error == ("exec format error: /var/task/bad" if files else "no such file or directory: /var/task/bad")


async def test_host_facts_in_proc_are_empty_and_settings_cannot_be_changed(linux: Linux) -> None:
    script = "cat /proc/cmdline /proc/keys; (echo 1 > /proc/sys/vm/drop_caches) 2>/dev/null || echo refused"
    text = await linux.shell(script)
    assert text == "refused\n"


@pytest.mark.parametrize("runtime", [name for name in images().present() if images().installed(name)])
async def test_every_runtime_finds_its_interpreter_and_its_client(linux: Linux, runtime: str) -> None:
    image = images().resolve(runtime)
    sandbox, listener = await linux.make(runtime)
    if image.executable is None:
        assert await run_shell(sandbox, listener, "ls -A /var/lang /var/runtime") == "/var/lang:\n\n/var/runtime:\n"
        return
    variables = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": image.environment["LD_LIBRARY_PATH"]}
    sandbox.start(ProcessSpec(name="version", argv=(image.executable, "--version"), environment=variables))
    assert await listener.wait_exit("version") == ProcessExit(name="version", code=0)
    assert image.version in listener.text
    program = next(part for part in image.argv if part.startswith("/var/runtime/"))
    assert await run_shell(sandbox, listener, f"test -r {program}; echo $?", "client") == "0\n"


class RecordingEgress:
    """Keeps the kind of what it is given, and closes it."""

    def __init__(self) -> None:
        self.attached: dict[str, list[str]] = {}

    def attach(self, name: str, tcp_fd: int, udp_fd: int) -> None:
        self.attached[name] = [os.readlink(f"/proc/self/fd/{descriptor}")[:7] for descriptor in (tcp_fd, udp_fd)]
        os.close(tcp_fd)
        os.close(udp_fd)

    def detach(self, name: str) -> None:
        self.attached.pop(name, None)


async def test_egress_sockets_are_handed_over_until_the_sandbox_is_destroyed() -> None:
    egress = RecordingEgress()
    async with open_linux(egress=egress) as linux:
        sandbox, _ = await linux.make(name="talker")
        assert egress.attached == {"talker": ["socket:", "socket:"]}
        await sandbox.destroy()
        assert egress.attached == {}


async def test_code_outside_the_code_root_is_refused(linux: Linux) -> None:
    with pytest.raises(SandboxUnavailable, match="not below"):
        await linux.make(code="/etc")


async def test_prepared_sandboxes_are_used_once_and_made_again() -> None:
    async with open_linux(prepared_target=2) as linux:
        await linux.provider.warm(PROVIDED)
        assert linux.provider.statistics().prepared == {PROVIDED: 2}
        await linux.make()
        assert linux.provider.statistics().prepared == {PROVIDED: 1}
        await asyncio.sleep(1.0)
        assert linux.provider.statistics().prepared == {PROVIDED: 2}
