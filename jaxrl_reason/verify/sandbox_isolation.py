"""Namespaces, mounts, rights and system calls of the sandbox, through the C library.

Host side. Reads: /proc of its own process. Writes: the same; mounts in its own mount namespace.

Linux alone. Every function changes the calling process for good, and raises OSError that names the call where the
kernel says no. Loaded by each sandbox before its program, hence the few imports.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

_CLONE_NEWUSER = 0x10000000
_NAMESPACES = 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # mnt pid net ipc uts
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_AT_RECURSIVE = 0x8000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_NO_NEW_PRIVS = 38

# Where the new root is put together: a folder that always exists and holds no library.
_STAGE = "/proc"
_BOX = "/box"

# (x86_64, aarch64) numbers; None: there is no such call.
_SYSCALLS = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "socket": (41, 198),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
}
# Calls that a solution never makes: other processes, namespaces, keys, memory that no limit counts.
_DENIED = {
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, audit number

_SIGKILL = 9

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    """A C function that says -1 where it fails."""
    passed = [a.encode() if isinstance(a, str) else a for a in arguments]
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in passed]
    if getattr(_libc, name)(*wide) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _kernel(name: str, *arguments: object) -> None:
    """A system call for which C libraries have no function."""
    column, _ = _MACHINES[os.uname().machine]
    try:
        _call("syscall", _DENIED[name][column], *arguments)
    except OSError as error:
        raise OSError(error.errno, f"{name}: {os.strerror(error.errno)}") from error


def own_namespaces() -> int:
    """New namespaces for this process and its children; the user that programs are to run as.

    Raises:
      OSError: the kernel or a policy of this machine forbids it.
    """
    if os.uname().machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no filter of system calls for {os.uname().machine}")
    uid, gid = os.getuid(), os.getgid()
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory ends after all, this one goes first
    other = _spare_user()
    if other is not None:
        try:
            _call("unshare", _NAMESPACES)
            return other
        except OSError:
            pass  # root in name alone; ask as everyone else does
    _call("unshare", _CLONE_NEWUSER | _NAMESPACES)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return uid


def _spare_user() -> int | None:
    """A user that nobody else is, so that its processes can be counted; None: we may not become one."""
    if os.geteuid():
        return None
    with open("/proc/self/uid_map") as file:
        first, _, count = map(int, file.read().split()[-3:])
    return first + count - 2 - os.getpid() % (count // 2) if count >= 1 << 16 else None


def _library() -> list[str]:
    """What programs get to see of this machine: shared libraries and Python's own, nothing else."""
    shared = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"]
    prefix = os.path.join(sys.base_prefix, "lib")
    return [path for path in [*shared, prefix, *sys.path] if os.path.lexists(path)]


def new_root(user: int, disk_bytes: int) -> None:
    """Nothing but `_library`, read-only, and an empty folder in memory, which becomes the current one.

    Args:
      user: owner of that folder.
      disk_bytes: its size.
    """
    _call("mount", "none", "/", None, _MS_REC | _MS_PRIVATE, None)
    _call("mount", "tmpfs", _STAGE, "tmpfs", _MS_NOSUID | _MS_NODEV, b"size=1m,mode=755")
    shown: list[str] = []
    for path in _library():
        place = _STAGE + path
        if any(path == done or path.startswith(done + "/") for done in shown):
            continue
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), place)
            continue
        if os.path.isdir(path):
            os.makedirs(place, exist_ok=True)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        _call("mount", path, place, None, _MS_BIND | _MS_REC, None)
        shown.append(path)
    # struct mount_attr: what to set, what to clear, propagation, user namespace.
    read_only = (ctypes.c_uint64 * 4)(_MS_RDONLY | _MS_NOSUID | _MS_NODEV, 0, 0, 0)
    for path in shown:
        place = (_STAGE + path).encode()
        _kernel("mount_setattr", -100, place, _AT_RECURSIVE, read_only, 32)
    box = f"size={disk_bytes},nr_inodes=1000,mode=700,uid={user},gid={user}".encode()
    os.mkdir(_STAGE + _BOX)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _call("mount", "tmpfs", _STAGE + _BOX, "tmpfs", flags, box)
    os.chdir(_STAGE)
    _kernel("pivot_root", b".", b".")
    _call("umount2", ".", _MNT_DETACH)
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    _call("mount", "none", "/", None, flags, None)
    os.chdir(_BOX)


def drop_rights(user: int) -> None:
    """Becomes `user`, without capabilities, without ways to get any, invisible to tracers, mortal with its parent."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) == -1:
            break  # beyond the last one
    if user != os.getuid():
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _call("capset", header, (ctypes.c_uint32 * 6)())
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    _call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)  # a change of user would forget it


def filter_calls() -> None:
    """System calls that are answered with an error from here on, for good.

    A network socket: "network is unreachable". A process, or another program: "try again", as
    where there are too many. A signal to another process and all of `_DENIED`: "not permitted".
    """
    column, machine = _MACHINES[os.uname().machine]
    allow, kill, fail = 0x7FFF0000, 0x80000000, 0x00050000
    load, equal, above, any_bit, end = 0x20, 0x15, 0x35, 0x45, 0x06
    number, architecture, first = 0, 4, 16  # offsets in struct seccomp_data
    code = [
        (load, 0, 0, architecture), (equal, 1, 0, machine), (end, 0, 0, kill),
        (load, 0, 0, number), (above, 0, 1, 0x40000000), (end, 0, 0, kill),
    ]  # fmt: skip

    def refuse(name: str, error: int) -> None:
        call = {**_SYSCALLS, **_DENIED}[name][column]
        if call is not None:
            code.extend([(equal, 0, 1, call), (end, 0, 0, fail | error)])

    def refuse_unless(name: str, test: int, value: int, error: int) -> None:
        call = _SYSCALLS[name][column]
        code.extend(
            [(equal, 0, 4, call), (load, 0, 0, first), (test, 0, 1, value), (end, 0, 0, allow),
             (end, 0, 0, fail | error)]
        )  # fmt: skip

    refuse_unless("clone", any_bit, 0x10000, errno.EAGAIN)  # threads may be
    refuse("clone3", errno.ENOSYS)  # its flags lie in memory; the C library falls back to clone
    for name in ("fork", "vfork", "execve", "execveat"):
        refuse(name, errno.EAGAIN)
    refuse_unless("socket", equal, 1, errno.ENETUNREACH)  # AF_UNIX
    for name in ("kill", "tkill", "tgkill"):
        refuse_unless(name, equal, os.getpid(), errno.EPERM)
    for name in _DENIED:
        refuse(name, errno.EPERM)
    code.append((end, 0, 0, allow))
    packed = b"".join(
        operation.to_bytes(2, sys.byteorder) + bytes(jumps) + value.to_bytes(4, sys.byteorder)
        for operation, *jumps, value in code
    )
    text = ctypes.create_string_buffer(packed, len(packed))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    program = Program(len(code), ctypes.addressof(text))
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", _PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0)
