"""Control groups: what is found on fake trees of every kind, and the real thing on this host."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.sandbox.launcher.cgroups import CgroupHost, Controls, EnvironmentGroups, detect, enable_controllers

PARENT = f"torpor-test-{os.getpid()}"


def _proc(tmp_path: Path, text: str) -> str:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(text)
    return str(tmp_path / "proc")


def _group(folder: Path, controllers: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").touch()
    if controllers is not None:
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").write_text("")
    return folder


def test_a_v2_tree_groups_go_beneath_the_own_group(tmp_path: Path) -> None:
    _group(tmp_path / "fs", "memory cpu pids io")
    own = _group(tmp_path / "fs/system.slice/torpor.service", "memory cpu pids")
    host = detect(str(tmp_path / "fs"), _proc(tmp_path, "0::/system.slice/torpor.service\n"))
    assert (host.kind, host.problems) == ("v2", [])
    groups = host.make("torpor", "a")
    assert groups.folders["memory"] == groups.folders["unified"] == f"{own}/torpor/a"
    assert (own / "torpor/a").is_dir()


def test_a_v2_process_already_in_the_leaf_groups_go_beside_the_leaf(tmp_path: Path) -> None:
    _group(tmp_path / "fs", "memory cpu pids")
    own = _group(tmp_path / "fs/user.slice/torpor.scope", "memory cpu pids")
    _group(own / "server", "")
    host = detect(str(tmp_path / "fs"), _proc(tmp_path, "0::/user.slice/torpor.scope/server\n"))
    assert host.bases["unified"] == str(own)


def test_a_v2_group_without_the_cpu_controller_is_usable_and_says_what_is_lost(tmp_path: Path) -> None:
    _group(tmp_path / "fs", "memory pids")
    host = detect(str(tmp_path / "fs"), _proc(tmp_path, "0::/\n"))
    assert host.kind == "v2"
    ((what, why, advice),) = host.problems
    assert "CPU share" in what and "no cpu controller" in why and "Delegate" in advice


def test_enabling_controllers_writes_only_those_offered(tmp_path: Path) -> None:
    group = _group(tmp_path / "g", "memory io")
    enable_controllers(str(group))
    assert (group / "cgroup.subtree_control").read_text() == "+memory"


def test_a_hybrid_tree_takes_controllers_from_v1_and_the_freezer_from_v2(tmp_path: Path) -> None:
    _group(tmp_path / "fs/unified", "")
    for name in ("memory/box", "cpu", "pids", "freezer"):
        _group(tmp_path / "fs" / name)
    proc = _proc(tmp_path, "4:memory:/box\n3:pids:/\n2:freezer:/\n1:cpu:/\n0::/\n")
    host = detect(str(tmp_path / "fs"), proc)
    assert (host.kind, host.problems) == ("hybrid", [])
    assert host.bases["memory"] == str(tmp_path / "fs/memory/box")
    assert "freezer" not in host.bases


def test_a_v1_tree_with_joined_controllers_uses_each_folder_once(tmp_path: Path) -> None:
    _group(tmp_path / "fs/cpu,cpuacct/docker/x")
    for name in ("cpu", "cpuacct"):
        (tmp_path / "fs" / name).symlink_to("cpu,cpuacct")
    for name in ("memory", "pids", "freezer"):
        _group(tmp_path / "fs" / name)
    proc = _proc(tmp_path, "3:cpu,cpuacct:/docker/x\n2:memory:/elsewhere/shown/as/root\n1:pids:/\n")
    host = detect(str(tmp_path / "fs"), proc)
    assert (host.kind, host.problems) == ("v1", [])
    assert host.bases["cpu"] == host.bases["cpuacct"] == str(tmp_path / "fs/cpu,cpuacct/docker/x")
    assert host.bases["memory"] == str(tmp_path / "fs/memory")
    host.make("torpor", "a")
    assert (tmp_path / "fs/freezer/torpor/a").is_dir()


def test_a_v1_tree_without_a_freezer_says_what_is_lost(tmp_path: Path) -> None:
    for name in ("memory", "cpu", "pids"):
        _group(tmp_path / "fs" / name)
    host = detect(str(tmp_path / "fs"), _proc(tmp_path, "1:memory:/\n"))
    ((what, why, _),) = host.problems
    assert "stopped by signals" in what and "freezer" in why


def test_no_tree_at_all_everything_is_a_calm_no_op(tmp_path: Path) -> None:
    host = detect(str(tmp_path / "missing"), str(tmp_path))
    assert host.kind == "none" and len(host.problems) == 1
    groups = host.make("torpor", "a")
    controls = Controls(host.kind, groups.open_controls())
    assert not controls.freeze() and not controls.set_memory(1) and not controls.kill()
    assert controls.memory_peak() == controls.oom_kills() == controls.cpu_seconds() == 0
    assert controls.processes() == ()
    assert groups.procs_fds() == [] and groups.remove()


def _controls(tmp_path: Path, kind: str, **files: str) -> Controls:
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    return Controls(kind, EnvironmentGroups(kind, {"unified": str(tmp_path)}).open_controls())


def test_v2_controls_write_the_documented_formats(tmp_path: Path) -> None:
    controls = _controls(tmp_path, "v2", memory__max="", memory__swap__max="", cpu__max="", cgroup__freeze="")
    assert controls.set_memory(1000) and controls.set_cpu(0.5) and controls.freeze()
    read = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert read == {"memory.max": "1000", "memory.swap.max": "0", "cpu.max": "50000 100000", "cgroup.freeze": "1"}
    controls.close()
    assert not controls.thaw()


def test_v2_counters_are_read_from_the_documented_formats(tmp_path: Path) -> None:
    controls = _controls(
        tmp_path,
        "v2",
        memory__events="low 0\noom 3\noom_kill 2\n",
        cpu__stat="usage_usec 1500000\n",
        memory__peak="77\n",
    )
    assert (controls.oom_kills(), controls.cpu_seconds(), controls.memory_peak()) == (2, 1.5, 77)
    controls.close()


def test_a_tiny_cpu_share_gets_the_smallest_quota_the_kernel_takes(tmp_path: Path) -> None:
    controls = _controls(tmp_path, "v1", cpu__cfs_quota_us="")
    assert controls.set_cpu(0.001)
    assert (tmp_path / "cpu.cfs_quota_us").read_text() == "1000"
    controls.close()


@pytest.fixture
def host() -> Iterator[CgroupHost]:
    host = detect()
    if host.kind == "none":
        pytest.skip(f"no usable control groups: {host.problems}")
    yield host
    assert host.remove_tree(PARENT)


@pytest.fixture
def groups(host: CgroupHost) -> Iterator[EnvironmentGroups]:
    groups = host.make(PARENT, "a")
    yield groups
    assert groups.remove()
    assert not any(os.path.exists(folder) for folder in groups.folders.values())


@pytest.fixture
def controls(groups: EnvironmentGroups, host: CgroupHost) -> Iterator[Controls]:
    controls = Controls(host.kind, groups.open_controls())
    yield controls
    controls.close()


def _child(groups: EnvironmentGroups, body: str, uid: int = 0) -> int:
    """Fork a child that loses its rights, joins by itself and runs a shell script."""
    fds = groups.procs_fds()
    pid = os.fork()
    if pid == 0:
        try:
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            for fd in fds:
                os.write(fd, b"0")
            os.execv("/bin/sh", ["sh", "-c", body])
        finally:
            os._exit(99)
    for fd in fds:
        os.close(fd)
    return pid


def _eventually(condition: object, seconds: float = 5.0) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


@pytest.mark.privileged
def test_a_process_without_rights_joins_every_group_by_the_descriptors(
    groups: EnvironmentGroups, controls: Controls
) -> None:
    pid = _child(groups, "exec sleep 60", uid=65534 if os.geteuid() == 0 else 0)
    try:
        assert _eventually(lambda: controls.processes() == (pid,))
        members = [Path(folder, "cgroup.procs") for folder in set(groups.folders.values())]
        assert _eventually(lambda: all(member.read_text().split() == [str(pid)] for member in members))
    finally:
        assert groups.kill() is None
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.privileged
def test_a_frozen_busy_process_uses_no_cpu_until_thawed(groups: EnvironmentGroups, controls: Controls) -> None:
    pid = _child(groups, "while :; do :; done")
    try:
        assert _eventually(lambda: controls.cpu_seconds() > 0.02)
        assert controls.freeze()
        time.sleep(0.03)
        before = controls.cpu_seconds()
        time.sleep(0.1)
        assert controls.cpu_seconds() - before < 0.01
        assert controls.thaw()
        assert _eventually(lambda: controls.cpu_seconds() - before > 0.02)
    finally:
        groups.kill()
        os.waitpid(pid, 0)


@pytest.mark.privileged
def test_a_frozen_process_dies_by_kill_and_its_groups_are_removed(
    groups: EnvironmentGroups, controls: Controls
) -> None:
    pid = _child(groups, "exec sleep 60")
    assert _eventually(lambda: controls.processes() == (pid,))
    controls.freeze()
    assert controls.kill() or groups.kill() is None
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert groups.remove()


@pytest.mark.privileged
def test_a_process_over_its_memory_is_killed_and_counted(groups: EnvironmentGroups, controls: Controls) -> None:
    assert controls.set_memory(24 << 20)
    pid = _child(groups, "exec head -c 100000000 /dev/zero | tail -c 90000000")
    os.waitpid(pid, 0)
    assert controls.oom_kills() >= 1
    assert 20 << 20 <= controls.memory_peak() <= 24 << 20


@pytest.mark.privileged
def test_memory_can_be_raised_and_lowered_again(groups: EnvironmentGroups, controls: Controls) -> None:
    shown = Path(groups.folders["memory"], "memory.max" if controls.kind == "v2" else "memory.limit_in_bytes")
    for limit in (64 << 20, 256 << 20, 32 << 20):
        assert controls.set_memory(limit)
        assert shown.read_text().strip() == str(limit)


@pytest.mark.privileged
def test_a_small_cpu_share_holds_a_busy_process_back(groups: EnvironmentGroups, controls: Controls) -> None:
    assert controls.set_cpu(0.1)
    pid = _child(groups, "while :; do :; done")
    try:
        assert _eventually(lambda: controls.cpu_seconds() > 0)
        before, started = controls.cpu_seconds(), time.monotonic()
        time.sleep(0.4)
        assert (controls.cpu_seconds() - before) / (time.monotonic() - started) < 0.2
        assert controls.set_cpu(None)
    finally:
        groups.kill()
        os.waitpid(pid, 0)


@pytest.mark.privileged
def test_more_processes_than_allowed_fail_to_start(groups: EnvironmentGroups, controls: Controls) -> None:
    assert controls.set_pids(1)
    pid = _child(groups, "(exit 0) 2>/dev/null & wait; exit 0")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


@pytest.mark.privileged
def test_a_tree_left_by_a_crash_is_killed_and_removed_frozen_or_not(host: CgroupHost) -> None:
    groups = host.make(PARENT, "left")
    controls = Controls(host.kind, groups.open_controls())
    pid = _child(groups, "exec sleep 60")
    assert _eventually(lambda: controls.processes() == (pid,))
    controls.freeze()
    controls.close()
    fresh = detect()
    assert fresh.remove_tree(PARENT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not any(os.path.exists(folder) for folder in groups.folders.values())
    assert fresh.make(PARENT, "left").remove()


@pytest.mark.privileged
def test_an_ordinary_account_is_told_why_it_can_make_no_groups(host: CgroupHost) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become an ordinary account")
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        found = detect()
        os._exit(0 if found.kind == "none" and "not writable" in found.problems[0][1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
