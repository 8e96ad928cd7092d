"""The system call filter: interpreted for both machines, and really loaded around real programs."""

import errno
import shutil
import struct
import subprocess
import sys
import textwrap

import pytest

from torpor.sandbox.launcher import seccomp
from torpor.sandbox.launcher.syscall_numbers import AARCH64, X86_64

MACHINES = {"x86_64": (0xC000003E, X86_64), "aarch64": (0xC00000B7, AARCH64)}
ALLOW, KILL = 0x7FFF0000, 0x80000000
UNFILTERED = seccomp.ALLOWED | {"clone", "socket", "ioctl", "personality"}


def _refusal(number: int) -> int:
    return 0x00050000 | number


def _run(program: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Interpret the filter as the kernel does; the result it returns."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *(*arguments, *[0] * 6)[:6])
    lines = list(struct.iter_unpack("=HBBI", program))
    register, at = 0, 0
    while True:
        code, then, other, operand = lines[at]
        at += 1
        if code == 0x20:
            register = struct.unpack_from("=I", data, operand)[0]
        elif code == 0x54:
            register &= operand
        elif code == 0x05:
            at += operand
        elif code == 0x06:
            return operand
        else:
            holds = {0x15: register == operand, 0x35: register >= operand, 0x45: bool(register & operand)}[code]
            at += then if holds else other


@pytest.fixture(params=sorted(MACHINES))
def machine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def _judge(machine: str, name: str, *arguments: int) -> int:
    architecture, numbers = MACHINES[machine]
    return _run(seccomp.program(machine), architecture, numbers[name], arguments)


def test_every_known_call_gets_exactly_its_verdict(machine: str) -> None:
    program, (architecture, numbers) = seccomp.program(machine), MACHINES[machine]
    for name, number in numbers.items():
        if name in UNFILTERED - seccomp.ALLOWED:
            continue
        expected = ALLOW if name in seccomp.ALLOWED else _refusal(errno.ENOSYS if name == "clone3" else errno.EPERM)
        assert _run(program, architecture, number) == expected, name


def test_every_number_that_is_no_call_is_answered_as_unknown(machine: str) -> None:
    program, (architecture, numbers) = seccomp.program(machine), MACHINES[machine]
    gaps = set(range(1000)) - set(numbers.values())
    for number in (*gaps, 0x40000000, 0x40000001, 0x7FFFFFFF, -1):
        assert _run(program, architecture, number) == _refusal(errno.ENOSYS)


def test_a_call_of_another_processor_mode_kills(machine: str) -> None:
    foreign = (0x40000003, 0x40000028, *(number for name, (number, _) in MACHINES.items() if name != machine))
    for architecture in foreign:
        assert _run(seccomp.program(machine), architecture, 1) == KILL


def test_the_same_machine_gets_the_same_bytes_within_the_kernels_limit(machine: str) -> None:
    assert seccomp.program(machine) == seccomp.program(machine)
    assert 0 < len(seccomp.program(machine)) // 8 <= 4096


def test_an_unknown_machine_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        seccomp.program("riscv64")


def test_every_allowed_name_is_a_call_of_some_machine() -> None:
    assert set(X86_64) | set(AARCH64) >= UNFILTERED


@pytest.mark.parametrize(
    "name",
    """mount umount2 unshare setns bpf perf_event_open keyctl add_key request_key init_module finit_module delete_module
    kexec_load reboot swapon userfaultfd io_uring_setup open_by_handle_at name_to_handle_at pivot_root chroot acct
    settimeofday clock_settime quotactl fanotify_init open_tree move_mount fsopen mount_setattr syslog pidfd_getfd
    """.split(),  # noqa: SIM905
)
def test_a_dangerous_call_is_refused(machine: str, name: str) -> None:
    assert _judge(machine, name) == _refusal(errno.EPERM)


@pytest.mark.parametrize("flag", [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000])
def test_clone_into_a_new_namespace_is_refused(machine: str, flag: int) -> None:
    assert _judge(machine, "clone", flag | 17) == _refusal(errno.EPERM)


def test_clone_of_threads_and_processes_is_allowed(machine: str) -> None:
    threads, processes = 0x3D0F00, 0x1200011
    assert _judge(machine, "clone", threads) == _judge(machine, "clone", processes) == ALLOW


@pytest.mark.parametrize(
    ("family", "kind", "protocol", "refusal"),
    [
        (1, 1, 0, 0),
        (1, 2, 0, 0),
        (1, 5, 0, 0),
        (2, 1, 0, 0),
        (2, 1 | 0o2004000, 6, 0),
        (2, 2, 17, 0),
        (10, 1, 6, 0),
        (10, 2, 0, 0),
        (16, 3, 0, 0),
        (16, 3, 12, errno.EPROTONOSUPPORT),
        (2, 3, 1, errno.EPERM),
        (10, 3, 255, errno.EPERM),
        (2, 10, 3, errno.EPERM),
        (2, 1, 132, errno.EPROTONOSUPPORT),
        (2, 1, 262, errno.EPROTONOSUPPORT),
        (2, 2, 1, errno.EPROTONOSUPPORT),
        (17, 3, 3, errno.EAFNOSUPPORT),
        (38, 5, 0, errno.EAFNOSUPPORT),
        (40, 1, 0, errno.EAFNOSUPPORT),
        (44, 3, 0, errno.EAFNOSUPPORT),
    ],
)
def test_a_socket_is_judged_by_family_kind_and_protocol(
    machine: str, family: int, kind: int, protocol: int, refusal: int
) -> None:
    assert _judge(machine, "socket", family, kind, protocol) == (_refusal(refusal) if refusal else ALLOW)


def test_upper_halves_of_arguments_the_kernel_ignores_change_nothing(machine: str) -> None:
    assert _judge(machine, "ioctl", 0, 0x1_0000_5412) == _refusal(errno.EPERM)
    assert _judge(machine, "socket", 0x1_0000_0011, 3, 0) == _refusal(errno.EAFNOSUPPORT)


def test_typing_into_a_terminal_is_refused_other_requests_pass(machine: str) -> None:
    assert _judge(machine, "ioctl", 0, 0x5412) == _judge(machine, "ioctl", 0, 0x541C) == _refusal(errno.EPERM)
    assert _judge(machine, "ioctl", 0, 0x5413) == ALLOW


def test_only_the_plain_personality_may_be_set(machine: str) -> None:
    assert _judge(machine, "personality", 0) == _judge(machine, "personality", 0xFFFFFFFF) == ALLOW
    assert _judge(machine, "personality", 0x0040000) == _refusal(errno.EPERM)


LOADED = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
from torpor.sandbox.launcher import seccomp
assert libc.prctl(38, 1, 0, 0, 0) == 0
seccomp.load()
"""


def _filtered(body: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run Python code, then execute `argv` if given, under the filter."""
    code = LOADED + textwrap.dedent(body) + (f"\nos.execv({argv[0]!r}, {list(argv)!r})" if argv else "")
    run = [sys.executable, "-c", code]
    return subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)


def test_loaded_the_kernel_refuses_what_the_filter_refuses() -> None:
    result = _filtered(
        """
        import errno, socket
        from torpor.sandbox.launcher.syscall_numbers import AARCH64, X86_64
        numbers = X86_64 if os.uname().machine == "x86_64" else AARCH64
        def outcome(name, *arguments):
            done = libc.syscall(numbers[name], *arguments)
            return errno.errorcode[ctypes.get_errno()] if done < 0 else "done"
        for call in (("mount", 0, 0, 0, 0, 0), ("unshare", 0x20000000), ("keyctl", 0, -1, 0), ("bpf", 0, 0, 0),
                     ("io_uring_setup", 1, 0), ("clone3", 0, 0), ("setns", 0, 0)):
            print(call[0], outcome(*call))
        for kind in ((socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_RAW, 0)):
            try:
                socket.socket(*kind)
                print("made")
            except OSError as error:
                print(errno.errorcode[error.errno])
        print(libc.syscall(600) == -1 and errno.errorcode[ctypes.get_errno()])
        """
    )
    assert result.stdout.split("\n")[:-1] == [
        "mount EPERM",
        "unshare EPERM",
        "keyctl EPERM",
        "bpf EPERM",
        "io_uring_setup EPERM",
        "clone3 ENOSYS",
        "setns EPERM",
        "EPERM",
        "EAFNOSUPPORT",
        "ENOSYS",
    ], result.stderr


def test_loaded_python_threads_subprocess_tls_asyncio_and_multiprocessing_work() -> None:
    result = _filtered(
        """
        import asyncio, multiprocessing, socket, ssl, subprocess, tempfile, threading, sqlite3, mmap, signal, time
        done = []
        thread = threading.Thread(target=lambda: done.append("thread"))
        thread.start(); thread.join()
        done.append(subprocess.run(["/bin/echo", "subprocess"], capture_output=True, text=True).stdout.strip())
        ssl.create_default_context(); done.append("tls")
        async def talk():
            server = await asyncio.start_server(lambda r, w: (w.write(b"asyncio"), w.close()), "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            done.append((await reader.read()).decode())
            writer.close(); await writer.wait_closed(); server.close(); await server.wait_closed()
            child = await asyncio.create_subprocess_exec("/bin/true")
            assert await child.wait() == 0
        asyncio.run(talk())
        with multiprocessing.get_context("fork").Pool(2) as pool:
            done.append(str(pool.map(abs, [-1, -2])))
        with tempfile.NamedTemporaryFile() as file:
            sqlite3.connect(file.name).execute("create table t (a)")
        done.append(str(socket.getaddrinfo("localhost", 80)[0][4][1]))
        mmap.mmap(-1, 4096).close()
        print(done)
        """
    )
    assert result.stdout.strip() == "['thread', 'subprocess', 'tls', 'asyncio', '[1, 2]', '80']", result.stderr


def test_loaded_bash_pipes_and_substitutions_work() -> None:
    result = _filtered("", "/bin/bash", "-c", "x=$(seq 3 | tail -1); cat <(echo $x); (exit 4); echo $?; ulimit -n >&2")
    assert result.stdout.split() == ["3", "4"], result.stderr


def test_loaded_node_timers_workers_children_and_sockets_work() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    script = """
        const {Worker} = require('worker_threads'), net = require('net'), cp = require('child_process');
        const fs = require('fs'), crypto = require('crypto'), dns = require('dns');
        const server = net.createServer(s => s.end('net')).listen(0, '127.0.0.1', async () => {
          const port = server.address().port;
          const said = await new Promise(r => net.connect(port, '127.0.0.1').on('data', d => r('' + d)));
          const worker = await new Promise(r =>
            new Worker("require('worker_threads').parentPort.postMessage('worker')", {eval: true}).on('message', r));
          const child = cp.execFileSync('/bin/echo', ['child']).toString().trim();
          await fs.promises.readFile('/etc/hostname'); crypto.randomBytes(8);
          await new Promise(r => crypto.pbkdf2('a', 'b', 10, 8, 'sha1', r));
          await dns.promises.lookup('localhost');
          server.close(); console.log(said, worker, child);
        });
    """
    result = _filtered("", node, "-e", script)
    assert result.stdout.strip() == "net worker child", result.stderr


def test_loaded_threads_started_before_are_under_the_filter_too() -> None:
    code = """
import ctypes, threading
libc = ctypes.CDLL(None, use_errno=True)
from torpor.sandbox.launcher import seccomp
go, answers = threading.Event(), []
def late():
    go.wait()
    answers.append(libc.unshare(0x20000000) == -1 and ctypes.get_errno())
thread = threading.Thread(target=late)
thread.start()
libc.prctl(38, 1, 0, 0, 0)
seccomp.load()
go.set(); thread.join()
print(answers)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert result.stdout.strip() == "[1]", result.stderr


def test_without_no_new_privileges_an_ordinary_account_gets_an_error() -> None:
    code = """
import os
from torpor.sandbox.launcher import seccomp
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    seccomp.load()
except OSError as error:
    print(error.errno)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert result.stdout.strip() == str(errno.EACCES), result.stderr
