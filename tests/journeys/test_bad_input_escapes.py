"""Attempts to get out of an environment: none succeeds, and the function that tries goes on answering."""

import os
import platform
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.conftest import Deploy
from tests.support.functions import python
from tests.support.server import Function, TorporServer, eventually

pytestmark = pytest.mark.privileged

TOOLS = """
import ctypes, http.client, pathlib, socket, stat, subprocess, urllib.parse

libc = ctypes.CDLL(None, use_errno=True)

class Nothing(Exception):
    pass

def nothing():
    raise Nothing("there was nothing to be had")

def attempt(work):
    try:
        return ["done", repr(work())[:200]]
    except Exception as error:
        return ["refused", f"{type(error).__name__} {error}"[:200]]

def handler(event, context):
    return {name: attempt(work) for name, work in attempts(event)} if "try" in event else BOOT
"""
REFUSALS = {"Nothing", "OSError", "PermissionError", "FileNotFoundError", "ConnectionRefusedError", "TimeoutError",
            "ConnectionResetError", "gaierror", "ProcessLookupError", "ValueError", "NotADirectoryError",
            "FileExistsError", "ConnectionAbortedError"}  # fmt: skip


def _outcome(function: Function, **event: Any) -> dict[str, str]:
    """What of the attempts was done, with its result; the function must answer as before, in the same process."""
    boot = function.invoke().payload
    reply = function.invoke({"try": True, **event})
    assert reply.error == "", reply.payload
    assert len(reply.payload) > 0
    assert function.invoke().payload == boot
    assert len(function.environments()) == 1
    refusals = {name: result.split()[0] for name, (verdict, result) in reply.payload.items() if verdict == "refused"}
    assert set(refusals.values()) <= REFUSALS, "an attempt did not even reach the system"
    return {name: result for name, (verdict, result) in reply.payload.items() if verdict != "refused"}


READS = """
def names(path):
    return [f"{at}/{name}" for at, _, files in os.walk(path) for name in files] or nothing()

def attempts(event):
    for path in event["files"]:
        yield f"read {path}", lambda path=path: pathlib.Path(path).read_bytes()
        yield f"read {path} by pid 1", lambda path=path: pathlib.Path("/proc/1/root" + path).read_bytes()
        yield f"read {path} by parents", lambda path=path: pathlib.Path("/tmp/" + "../" * 20 + path).read_bytes()
    for path in event["folders"]:
        yield f"list {path}", lambda path=path: names(path)
    for name in ("environ", "maps", "mem", "cwd", "root", "fd", "ns/mnt"):
        path = "/proc/1/" + name
        yield f"use {path}", lambda path=path: os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(9)
    yield "marker", lambda: open("/tmp/" + event["marker"]).read()
    yield "link", lambda: (os.symlink(event["files"][0], "/tmp/link"), open("/tmp/link").read())[1]
    seen = [pathlib.Path(f"/proc/{name}/cmdline").read_bytes() for name in os.listdir("/proc") if name.isdigit()]
    yield "strangers", lambda: [line for line in seen if b"serve" in line or b"pytest" in line] or nothing()
    yield "processes", lambda: len(seen) if len(seen) > 4 else nothing()
"""


def test_host_files_processes_and_other_environments_cannot_be_seen(server: TorporServer, deploy: Deploy) -> None:
    function, other = deploy(python(TOOLS + READS)), deploy(python(MARKER))
    other.invoke({"marker": f"secret-{other.name}"})
    home = Path.home().iterdir() if Path.home().is_dir() else ()
    own = [str(path) for path in home if path.is_file()][:5]
    assert Path("/etc/shadow").exists()
    files = [*own, "/etc/shadow", "/etc/hostname", __file__, str(server.data / "torpor.db"), str(server.data / "lock")]
    hidden = [str(server.data), str(server.base), "/var/lib/torpor", "/run/torpor", "/home", "/root", "/srv", "/mnt"]
    hidden += [*(f"/{name}" for name in os.listdir("/") if f"/{name}" not in INSIDE), "/sys", "/boot", "/dev/shm"]

    files = [path for path in files if not path.startswith(("/usr/", "/etc/hostname"))]
    done = _outcome(function, files=files, folders=hidden, marker=f"secret-{other.name}")

    assert done == {}
    assert other.invoke({"look": f"secret-{other.name}"}).payload is True


INSIDE = {"/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/proc", "/sbin", "/tmp", "/usr"}
INSIDE |= {"/var"}
MARKER = """
def handler(event, context):
    if "marker" in event:
        open("/tmp/" + event["marker"], "w").write("secret")
    return os.path.exists("/tmp/" + event.get("look", ""))
"""

CONNECTS = """
def talk(host, port):
    with socket.create_connection((host, port), timeout=2) as peer:
        peer.settimeout(2)
        peer.sendall(b"GET /_torpor/health HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        return peer.recv(100) or nothing()

def unix(name):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(name)

def steal(id):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"], timeout=2)
    connection.request("POST", f"/2018-06-01/runtime/invocation/{id}/response", '"stolen"')
    status = connection.getresponse().status
    return status if status < 300 else nothing()

def shout(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(0.3)
        peer.sendto(b"hello", (host, port))
        return peer.recv(100)

def attempts(event):
    for host, port in event["places"]:
        yield f"talk to {host} {port}", lambda host=host, port=port: talk(host, port)
        yield f"shout to {host} {port}", lambda host=host, port=port: shout(host, port)
    for name in event["names"]:
        yield f"unix {name}", lambda name=name: unix("\\0" + name[1:] if name.startswith("@") else name)
    yield "other invocation", lambda: steal(event["id"])
    for kind in ("AF_PACKET", "AF_NETLINK", "AF_VSOCK", "AF_BLUETOOTH", "AF_ALG", "AF_TIPC", "AF_XDP"):
        family = getattr(socket, kind, 44)
        if kind != "AF_NETLINK":
            yield f"raw {kind}", lambda family=family: socket.socket(family, socket.SOCK_RAW).close()
    for number in (1, 6, 17, 255):
        yield f"raw ip {number}", lambda number=number: socket.socket(socket.AF_INET, socket.SOCK_RAW, number).close()
    yield "spoof", lambda: socket.create_server(("169.254.100.1", 9001)).close()
"""


def test_server_host_neighbours_and_metadata_cannot_be_reached(server: TorporServer, deploy: Deploy) -> None:
    function, other = deploy(python(TOOLS + CONNECTS)), deploy(python(HOLDER))
    held = other.start({"hold": 6})
    with _listening() as (port, names):
        line = eventually(lambda: [line for line in other.lines() if line.startswith("held ")])[0]
        own = int(server.url.rpartition(":")[2])
        hosts = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost", "host.torpor.internal", *_own_addresses()]
        places = [(host, number) for host in hosts for number in (own, port)]
        places += [("169.254.169.254", 80), ("100.100.100.200", 80), ("168.63.129.16", 80)]
        with _real_connection(port):
            done = _outcome(function, places=places, names=names, id=line.split()[1])

    assert done == {}
    assert held.result().payload == "own"


HOLDER = """
def handler(event, context):
    print("held", context.aws_request_id, flush=True)
    time.sleep(event["hold"])
    return "own"
"""


@contextmanager
def _listening() -> Iterator[tuple[int, list[str]]]:
    """Something on the host that answers everybody: a port on every address, and names of Unix sockets."""
    abstract = f"@torpor-test-{os.getpid()}"
    with (
        closing(socket.create_server(("0.0.0.0", 0))) as tcp,
        closing(socket.socket(socket.AF_UNIX)) as unix,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp,
    ):
        port = tcp.getsockname()[1]
        udp.bind(("0.0.0.0", port))
        unix.bind("\0" + abstract[1:])
        unix.listen()
        threads = [threading.Thread(target=work, args=(it,)) for work, it in ((_greet, tcp), (_echo, udp))]
        for thread in threads:
            thread.start()
        yield port, [abstract, "/run/dbus/system_bus_socket", "/run/systemd/private", "/var/run/docker.sock"]
        with suppress(OSError):
            tcp.shutdown(socket.SHUT_RDWR)
        udp.sendto(b"", ("127.0.0.1", port))
        for thread in threads:
            thread.join()


def _greet(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


def _echo(listener: socket.socket) -> None:
    while (got := listener.recvfrom(100))[0]:
        listener.sendto(*got)


@contextmanager
def _real_connection(port: int) -> Iterator[None]:
    """The listener does answer whoever reaches it."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
        assert peer.recv(100)
    yield


def _own_addresses() -> list[str]:
    """Addresses of this host that are no loopback."""
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.254", 9))
        found.add(probe.getsockname()[0])
    return sorted(address for address in found if not address.startswith("127."))


NUMBERS = {
    "x86_64": {
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "clone": 56,
        "init_module": 175, "finit_module": 313, "delete_module": 176, "bpf": 321, "add_key": 248, "keyctl": 250,
        "request_key": 249, "ptrace": 101, "kexec_load": 246, "open_by_handle_at": 304, "perf_event_open": 298,
        "userfaultfd": 323, "io_uring_setup": 425, "swapon": 167, "sethostname": 170, "settimeofday": 164,
        "iopl": 172, "ioperm": 173, "process_vm_readv": 310, "mount_setattr": 442, "open_tree": 428, "fsopen": 430,
        "move_mount": 429, "acct": 163, "quotactl": 179, "syslog": 103, "clone3": 435, "personality": 135,
        "kcmp": 312, "fanotify_init": 300, "pidfd_getfd": 438, "name_to_handle_at": 303, "lookup_dcookie": 212,
    },
    "aarch64": {
        "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "clone": 220,
        "init_module": 105, "finit_module": 273, "delete_module": 106, "bpf": 280, "add_key": 217, "keyctl": 219,
        "request_key": 218, "ptrace": 117, "kexec_load": 104, "open_by_handle_at": 265, "perf_event_open": 241,
        "userfaultfd": 282, "io_uring_setup": 425, "swapon": 224, "sethostname": 161, "settimeofday": 170,
        "process_vm_readv": 270, "mount_setattr": 442, "open_tree": 428, "fsopen": 430, "move_mount": 429,
        "acct": 89, "quotactl": 60, "syslog": 116, "clone3": 435, "kcmp": 272, "fanotify_init": 262,
        "pidfd_getfd": 438, "name_to_handle_at": 264,
    },
}  # fmt: skip

CALLS = """
NEW = {"mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000,
       "pid": 0x20000000, "net": 0x40000000}
text = ctypes.create_string_buffer

def attempts(event):
    numbers = event["numbers"]

    def call(name, *arguments):
        ctypes.set_errno(0)
        result = libc.syscall(numbers[name], *arguments)
        if result == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if name in ("clone", "clone3") and result == 0:
            os._exit(0)
        return result

    null, here, root = None, b"/tmp", b"/"
    room = text(8)
    memory = (ctypes.c_void_p * 2)(ctypes.addressof(room), 8)
    tries = {
        "mount": [(b"x", here, b"tmpfs", 0, null), (root, here, null, 4096, null), (null, root, null, 32 | 4096, null),
                  (b"proc", here, b"proc", 0, null)],
        "umount2": [(b"/tmp", 2), (b"/proc", 2), (b"/var/task", 2), (b"/", 2)],
        "pivot_root": [(here, here)], "chroot": [(here,), (b"/proc/1/root",)], "unshare": [(f,) for f in NEW.values()],
        "clone": [(f | 17, 0, 0, 0, 0) for f in NEW.values()], "clone3": [(text(88), 88)],
        "init_module": [(text(16), 16, b"")], "finit_module": [(0, b"", 0)], "delete_module": [(b"x", 2048)],
        "bpf": [(0, text(128), 128), (5, text(128), 128)], "add_key": [(b"user", b"x", b"y", 1, -3)],
        "keyctl": [(0, -3, 1), (1, null)], "request_key": [(b"user", b"x", null, -3)],
        "ptrace": [(16, 1, 0, 0), (0x4206, 1, 0, 0)], "kexec_load": [(0, 0, null, 0)],
        "open_by_handle_at": [(-100, text(128), 0)], "name_to_handle_at": [(-100, root, text(256), text(8), 0)],
        "perf_event_open": [(text(128), 0, -1, -1, 0)], "userfaultfd": [(0,), (1,)],
        "io_uring_setup": [(8, text(256))], "swapon": [(b"/tmp/x", 0)], "sethostname": [(b"evil", 4)],
        "settimeofday": [(text(16), null)], "iopl": [(3,)], "ioperm": [(0, 8, 1)],
        "process_vm_readv": [(1, memory, 1, memory, 1, 0)], "mount_setattr": [(-100, here, 0, text(32), 32)],
        "open_tree": [(-100, root, 1)], "fsopen": [(b"tmpfs", 0)], "move_mount": [(-100, here, -100, here, 0)],
        "acct": [(null,)], "quotactl": [(0x800007 << 8, null, 0, null)], "syslog": [(2, text(99), 99), (5, null, 0)],
        "kcmp": [(1, os.getpid(), 0, 0, 0)], "fanotify_init": [(0, 0)], "pidfd_getfd": [(0, 0, 0)],
        "lookup_dcookie": [(0, text(99), 99)], "personality": [(0x0400000,)],
    }
    for name, lists in tries.items():
        for place, arguments in enumerate(lists if name in numbers else ()):
            yield f"{name} {place}", lambda name=name, arguments=arguments: call(name, *arguments)
    for kind in NEW:
        yield f"setns {kind}", lambda kind=kind: call("setns", os.open(f"/proc/1/ns/{kind}", os.O_RDONLY), 0)
    yield "setns own", lambda: call("setns", os.open("/proc/self/ns/mnt", os.O_RDONLY), 0)
    for kind, mode in (("char", stat.S_IFCHR), ("block", stat.S_IFBLK)):
        yield f"mknod {kind}", lambda mode=mode: os.mknod("/tmp/device", mode | 0o666, os.makedev(1, 1))
    for path in ("/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/sda", "/dev/loop0", "/dev/loop-control",
                 "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/mapper/control", "/proc/kcore", "/proc/kmsg"):
        yield f"open {path}", lambda path=path: os.read(os.open(path, os.O_RDONLY), 1) or nothing()
    yield "kill pid 1", lambda: (os.kill(1, 9), nothing())
    yield "nice", lambda: os.nice(-5)
    yield "realtime", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
"""


def test_system_calls_that_lead_out_are_refused(deploy: Deploy) -> None:
    if platform.machine() not in NUMBERS:
        pytest.skip(f"the numbers of {platform.machine()}'s system calls are not listed here")
    before = _host_facts()
    function = deploy(python(TOOLS + CALLS), Timeout=30, MemorySize=1024)

    assert _outcome(function, numbers=NUMBERS[platform.machine()]) == {}

    assert _host_facts() == before


WRITES = """
def write(path, data="1"):
    with open(path, "r+" if os.path.exists(path) else "w") as file:
        file.write(data)
    return path

def attempts(event):
    folders = ["/", "/var/task", "/opt", "/var/runtime", "/var/lang", "/usr", "/usr/bin", "/etc", "/dev", "/dev/shm",
               "/run", "/var", "/var/tmp", "/home", "/root", "/proc", "/sys", "/lib"]
    for folder in folders:
        yield f"make in {folder}", lambda folder=folder: write(f"{folder}/evil")
        yield f"folder in {folder}", lambda folder=folder: os.mkdir(f"{folder}/evil-folder")
    for path in ("/var/task/app.py", "/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/usr/bin/env", "/bin/sh"):
        yield f"write {path}", lambda path=path: write(path)
        yield f"remove {path}", lambda path=path: os.remove(path)
        yield f"chmod {path}", lambda path=path: os.chmod(path, 0o777)
        yield f"move {path}", lambda path=path: os.rename(path, path + "-evil")
    names = ["kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "kernel/domainname", "vm/drop_caches",
             "vm/overcommit_memory", "kernel/sysrq", "fs/file-max", "net/ipv4/ip_forward", "user/max_user_namespaces",
             "kernel/pid_max", "kernel/ns_last_pid", "fs/binfmt_misc/register", "net/ipv4/ip_unprivileged_port_start"]
    for name in names:
        yield f"set {name}", lambda name=name: write("/proc/sys/" + name, "1")
    yield "sysrq", lambda: write("/proc/sysrq-trigger", "?")
    yield "less oom", lambda: write("/proc/self/oom_score_adj", "-1000")
    yield "uid map", lambda: write("/proc/self/uid_map", "0 0 1")
    yield "gid map", lambda: write("/proc/self/gid_map", "0 0 1")
    yield "login", lambda: write("/proc/self/loginuid", "0")
    for line in open("/proc/self/cgroup"):
        name = line.rstrip().split(":")[1] or "unified"
        for base in ("/sys/fs/cgroup", f"/sys/fs/cgroup/{name}"):
            for file in ("cgroup.procs", "memory.max", "memory.limit_in_bytes", "pids.max", "release_agent"):
                yield f"{base} {file}", lambda base=base, file=file: write(f"{base}/{file}", "0")
    for number in (0, 1000):
        yield f"setuid {number}", lambda number=number: os.setuid(number)
        yield f"setreuid {number}", lambda number=number: os.setresuid(number, number, number)
        yield f"setgid {number}", lambda number=number: os.setgid(number)
        yield f"setgroups {number}", lambda number=number: os.setgroups([number])
        yield f"chown {number}", lambda number=number: (write("/tmp/own"), os.chown("/tmp/own", number, number))
    yield "capset", capset
    yield "ambient", lambda: need(libc.prctl(47, 2, 21, 0, 0))
    yield "no new privileges off", lambda: need(libc.prctl(38, 0, 0, 0, 0))
    yield "seccomp off", lambda: need(libc.prctl(22, 0, 0, 0, 0))
    yield "setuid program", setuid_program
    yield "capabilities", lambda: [line for line in open("/proc/self/status") if line.startswith("Cap")
                                   and int(line.split()[1], 16)] or nothing()
    yield "limits", lambda: __import__("resource").setrlimit(7, (1 << 20, 1 << 20))

def need(result):
    if result == -1:
        raise OSError(ctypes.get_errno())
    return result

def capset():
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    return need(libc.capset(header, (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)))

def setuid_program():
    for path in ("/usr/bin/su", "/bin/su", "/usr/bin/passwd", "/usr/bin/newgrp", "/usr/bin/mount", "/usr/bin/sudo"):
        if os.path.exists(path) and os.stat(path).st_mode & stat.S_ISUID:
            child = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=-3, stderr=-3)
            status = open(f"/proc/{child.pid}/status").read() if child.poll() is None else ""
            child.kill()
            child.wait()
            if "Uid:" in status and status.partition("Uid:")[2].split()[1] == "0":
                return path
    nothing()
"""


def test_files_settings_and_identity_cannot_be_changed(deploy: Deploy) -> None:
    before = _host_facts()
    function = deploy(python(TOOLS + WRITES), Timeout=30, MemorySize=1024)

    assert _outcome(function) == {}

    assert _host_facts() == before


def _host_facts() -> dict[str, str]:
    """Settings of the host that an escape would change first."""
    names = ["core_pattern", "hostname", "modprobe", "sysrq", "pid_max", "randomize_va_space"]
    facts = {name: path.read_text() for name in names if (path := Path("/proc/sys/kernel", name)).exists()}
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "torpor" in line]
    return {**facts, "mounts": "\n".join(mounts), "folder": " ".join(sorted(os.listdir("/")))}
