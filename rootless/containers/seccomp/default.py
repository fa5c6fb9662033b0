"""The profile of a container that asks for none: what Docker's own allows.

A table, written by subject: system calls that every container may make, those that need a
capability of the container, those of one architecture, those whose arguments decide. All others
fail with EPERM. In Docker's JSON schema as ``profile()``, which profile reads as any other.
"""

from __future__ import annotations

from typing import Any, Final

# What every container may call.
_ALLOWED: Final = {
    "files": """
        access cachestat chdir chmod chown chown32 close close_range copy_file_range creat
        dup dup2 dup3 faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod
        fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
        flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64
        fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr
        getxattrat ioctl lchown lchown32 lgetxattr link linkat listmount listxattr
        listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir
        mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64
        preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
        removexattr removexattrat rename renameat renameat2 rmdir sendfile sendfile64
        setxattr setxattrat splice stat stat64 statfs statfs64 statmount statx symlink
        symlinkat sync sync_file_range syncfs tee truncate truncate64 unlink unlinkat
        utime utimensat utimensat_time64 utimes vmsplice write writev
    """,
    "memory": """
        brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock
        mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap
        pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages
    """,
    "processes": """
        execve execveat exit exit_group fork get_thread_area getcpu getpgid getpgrp getpid
        getppid getpriority getrlimit getrusage getsid gettid ioprio_get ioprio_set
        pidfd_open prlimit64 restart_syscall riscv_hwprobe rseq sched_get_priority_max
        sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
        sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
        sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
        set_thread_area set_tid_address setpgid setpriority setrlimit setsid ugetrlimit
        uretprobe vfork wait4 waitid waitpid
    """,
    "identity": """
        capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
        getgroups32 getresgid getresgid32 getresuid getresuid32 getuid getuid32
        landlock_add_rule landlock_create_ruleset landlock_restrict_self prctl seccomp
        setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
        setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
        setreuid32 setuid setuid32 umask
    """,
    "signals": """
        kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask
        rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
        rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask sigreturn tgkill
        tkill
    """,
    "time": """
        adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
        clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer
        gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun
        timer_gettime timer_gettime64 timer_settime timer_settime64 times
    """,
    "waiting": """
        epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
        epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch
        inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
        io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect poll ppoll
        ppoll_time64 pselect6 pselect6_time64 select timerfd_create timerfd_gettime
        timerfd_gettime64 timerfd_settime timerfd_settime64
    """,
    "between processes": """
        futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list
        ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
        mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2
        semctl semget semop semtimedop semtimedop_time64 set_robust_list shmat shmctl
        shmdt shmget
    """,
    "network": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv
        recvfrom recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt
        shutdown socketpair
    """,
    "the system": """
        getrandom sysinfo uname
    """,
}
# Of a capability that the container has. The kernel asks for it, too, but of the user namespace
# that the process is in; these are the calls in which that has gone wrong before.
_WITH_CAPABILITY: Final = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
        lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
        umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

# Before Linux 4.8 a tracer could get around the filter of what it traced.
_SINCE_4_8: Final = "process_vm_readv process_vm_writev ptrace"

# By Go's names of architectures.
_OF_ARCHITECTURE: Final = {
    ("amd64",): "arch_prctl modify_ldt",
    ("386",): "modify_ldt",
    ("arm", "arm64"): """
        arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2
    """,
    ("ppc64le",): "swapcontext sync_file_range2",
    ("riscv64",): "riscv_flush_icache",
    ("s390", "s390x"): "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
}

# Also for programs of these, which the same kernel runs.
_SUB_ARCHITECTURES: Final = {
    "X86_64": "X86 X32",
    "AARCH64": "ARM",
    "MIPS64": "MIPS MIPS64N32",
    "MIPSEL64": "MIPSEL MIPSEL64N32",
    "S390X": "S390",
    "RISCV64": "",
    "LOONGARCH64": "",
}

# CLONE_NEW*: NS, CGROUP, UTS, IPC, USER, PID, NET. A new user namespace is where much of what a
# kernel gets wrong begins.
_NEW_NAMESPACES: Final = 0x7E020000
# Linux, ADDR_COMPAT_LAYOUT and their like that programs ask for; 0xffffffff asks what it is.
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# Sockets of these reach the kernel's cryptography and the hypervisor, past any network namespace.
_AF_ALG: Final = 38
_AF_VSOCK: Final = 40

_EPERM: Final = 1
_ENOSYS: Final = 38


def profile() -> dict[str, Any]:
    """Return the profile in Docker's JSON schema."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "archMap": [
            {
                "architecture": f"SCMP_ARCH_{name}",
                "subArchitectures": [f"SCMP_ARCH_{sub}" for sub in others.split()],
            }
            for name, others in _SUB_ARCHITECTURES.items()
        ],
        "syscalls": [
            _allow(" ".join(_ALLOWED.values())),
            _allow(_SINCE_4_8, includes={"minKernel": "4.8"}),
            *(
                _allow(names, includes={"caps": [capability]})
                for capability, names in _WITH_CAPABILITY.items()
            ),
            *(
                _allow(names, includes={"arches": list(arches)})
                for arches, names in _OF_ARCHITECTURE.items()
            ),
            _allow("socket", args=[_argument(0, "LT", _AF_ALG)]),
            *(
                _allow("socket", args=[_argument(0, "EQ", family)])
                for family in range(_AF_ALG + 1, _AF_VSOCK)
            ),
            _allow("socket", args=[_argument(0, "GT", _AF_VSOCK)]),
            *(_allow("personality", args=[_argument(0, "EQ", it)]) for it in _PERSONALITIES),
            *_clone(),
            # What it is to do lies in memory, too: a socket of a family that socket(2) refuses.
            {"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        ],
    }


def _clone() -> list[dict[str, Any]]:
    without = {"caps": ["CAP_SYS_ADMIN"]}
    s390 = ["s390", "s390x"]
    return [
        _allow(
            "clone",
            args=[_argument(0, "MASKED_EQ", _NEW_NAMESPACES)],
            excludes={**without, "arches": s390},
        ),
        # Whose clone(2) takes its arguments in another order.
        _allow(
            "clone",
            args=[_argument(1, "MASKED_EQ", _NEW_NAMESPACES)],
            includes={"arches": s390},
            excludes=without,
        ),
        # Its flags lie in memory, where no filter sees them; the C library falls back to clone.
        {
            "names": ["clone3"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": _ENOSYS,
            "excludes": without,
        },
    ]


def _allow(names: str, **conditions: Any) -> dict[str, Any]:
    return {"names": names.split(), "action": "SCMP_ACT_ALLOW", **conditions}


def _argument(index: int, operator: str, value: int) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": 0}
