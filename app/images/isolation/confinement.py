"""Takes from a decoder what it does not need: time beyond a limit, memory, and nearly all system calls.

Linux ends a process that has used its time, and answers other system calls with "not permitted" (seccomp). A decoder
that a damaged file has taken over can open no file and no connection, start no program, and trace no process.

Source: https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html; the numbers of the system calls are
those of asm/unistd_64.h and asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import platform
import resource
import signal
import struct
from pathlib import Path
from typing import Final, NamedTuple

logger = logging.getLogger(__name__)

_SPARE_BYTES: Final = 256_000_000  # libraries reserve more addresses than they use

_NO_NEW_PRIVILEGES: Final = 38  # PR_SET_NO_NEW_PRIVS
_SET_SECCOMP: Final = 22
_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_DENY: Final = 0x00050000 | errno.EPERM
_UNKNOWN: Final = 0x00050000 | errno.ENOSYS
_KILL: Final = 0x80000000
# Instructions of classic BPF: load a word, compare, test bits, return.
_LOAD: Final = 0x20
_EQUALS: Final = 0x15
_HAS_BITS: Final = 0x45
_RETURN: Final = 0x06
# Where struct seccomp_data has the number, the architecture and the low half of the first and second argument.
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_FIRST_ARGUMENT: Final = 16
_SECOND_ARGUMENT: Final = 24
_CLONE_THREAD: Final = 0x10000
_DUPLICATE: Final = 1030  # F_DUPFD_CLOEXEC


class _Calls(NamedTuple):
    """The system calls of an architecture.

    Attributes:
        audit: the architecture's number in audit.h.
        allowed: the numbers of the calls that a decoder needs.
        clone: the number of `clone`, which may start threads only.
        clone3: the number of `clone3`, whose arguments a filter cannot see; libraries fall back to `clone`.
        prlimit: the number of `prlimit64`, for this process only.
        fcntl: the number of `fcntl`, to duplicate descriptors only, which Python does to map memory.
    """

    audit: int
    allowed: tuple[int, ...]
    clone: int
    clone3: int
    prlimit: int
    fcntl: int


# read write close fstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64
# sched_yield mremap madvise nanosleep setitimer getpid sendto recvfrom sendmsg recvmsg exit getrusage gettimeofday
# times sigaltstack gettid futex sched_getaffinity set_tid_address clock_gettime clock_getres clock_nanosleep
# exit_group tgkill set_robust_list getrandom membarrier rseq newfstatat
_X86_64: Final = _Calls(
    0xC000003E,
    (0, 1, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 24, 25, 28, 35, 38, 39, 44, 45, 46, 47, 60, 98, 96, 100, 131,
     186, 202, 204, 218, 228, 229, 230, 231, 234, 273, 318, 324, 334, 262),
    clone=56, clone3=435, prlimit=302, fcntl=72,
)  # fmt: skip
_AARCH64: Final = _Calls(
    0xC00000B7,
    (63, 64, 57, 80, 73, 62, 222, 226, 215, 214, 134, 135, 139, 67, 124, 216, 233, 101, 103, 172, 206, 207, 211, 212,
     93, 165, 169, 153, 132, 178, 98, 123, 96, 113, 114, 115, 94, 131, 99, 278, 283, 293, 79),
    clone=220, clone3=435, prlimit=261, fcntl=25,
)  # fmt: skip
_MACHINES: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}


def confine() -> None:
    """Confines this process for good. Where the kernel knows no filters, only the limits on time and memory hold."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the image
    calls = _MACHINES.get(platform.machine())
    libc = ctypes.CDLL(None, use_errno=True)
    if calls is None or libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        logger.warning("Decoders keep their system calls: there is no filter for %s.", platform.machine())
        return
    instructions = _program(calls)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
    program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(code))
    if libc.prctl(_SET_SECCOMP, _FILTER, program, 0, 0):
        logger.warning("Decoders keep their system calls: errno %d.", ctypes.get_errno())


def limit_time(seconds: float) -> None:
    """Makes the kernel end this process when it has used so much CPU from now on; 0 to lift the limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def address_bytes() -> int:
    """Returns the size of this process's addresses in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def limit_memory(own_bytes: int, needed: int) -> None:
    """Limits the memory of this process.

    Args:
        own_bytes: the size of its addresses without an image, in bytes.
        needed: what the image is to take, by the estimate, in bytes.
    """
    most = own_bytes + 2 * needed + _SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _program(calls: _Calls) -> list[tuple[int, int, int, int]]:
    """Returns the program: code, jumps if true and if false, operand. It falls through to the next comparison."""
    # What is allowed whatever its arguments comes first, for it is called most.
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE), (_EQUALS, 1, 0, calls.audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER),
    ]  # fmt: skip
    for number in calls.allowed:
        program += [(_EQUALS, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    program += [
        (_EQUALS, 0, 1, calls.clone3), (_RETURN, 0, 0, _UNKNOWN),
        (_EQUALS, 0, 4, calls.clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_HAS_BITS, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY),
        (_EQUALS, 0, 4, calls.prlimit), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_EQUALS, 0, 1, 0), (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
        (_EQUALS, 0, 4, calls.fcntl), (_LOAD, 0, 0, _SECOND_ARGUMENT), (_EQUALS, 0, 1, _DUPLICATE),
        (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _DENY),
    ]  # fmt: skip
    return program
