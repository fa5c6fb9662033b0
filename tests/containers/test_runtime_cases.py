"""What container runtimes have got wrong before, each in a case of its own."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from tests.containers.support import out
from tests.support import images
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE


def mount_flags(table: str) -> dict[str, set[str]]:
    """Return the options of each mount point of a mountinfo, those of its file system too."""
    found = {}
    for line in table.splitlines():
        fields = line.split()
        # A file system that is writable may well be mounted read-only.
        found[fields[4]] = {*fields[5].split(","), *fields[-1].split(",")} - {"rw"}
    return found


@pytest.fixture(scope="module")
def service(rl: Rl) -> Iterator[str]:
    """Return the name of a container that runs and does nothing."""
    rl("run", "-d", "--name", "cases", "alpine", "sleep", "100000")
    yield "cases"
    rl("rm", "-f", "cases")


@pytest.fixture
def image(rl: Rl, registry: Registry, tmp_path: Path) -> Callable[..., str]:
    """Return a function that makes an image of busybox and these files; it returns its name."""

    def make(*entries: tarfile.TarInfo) -> str:
        images.busybox(tmp_path, {entry.name: entry for entry in entries})
        registry.push(f"oci:{tmp_path}:latest", "tests/cases")
        name = f"{registry.host}/tests/cases"
        rl("pull", "-q", name)
        return name

    return make


def directory(name: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info


# The process


def test_directory_where_the_users_are_written_is_no_list_of_users(
    rl: Rl, image: Callable[..., str]
) -> None:
    name = image(directory("etc/passwd", 0o755), directory("etc/group", 0o755))
    assert out(rl, name, "id", "-u") == "0\n"
    assert out(rl, "-u", "5:6", name, "sh", "-c", "id -u; id -g") == "5\n6\n"
    assert out(rl, "--userns", "keep-id", name, "id", "-u") == f"{os.getuid()}\n"
    done = rl("run", "--rm", "-q", "-u", "www", name, "id", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)


@pytest.mark.parametrize(
    ("directory", "program"), [("/bin", "./echo"), ("/", "bin/echo"), ("/etc", "../bin/echo")]
)
def test_program_with_a_slash_is_found_from_the_working_directory(
    rl: Rl, service: str, directory: str, program: str
) -> None:
    command = (program, "found")
    assert out(rl, "-w", directory, "alpine", *command) == "found\n"
    assert rl("exec", "-w", directory, service, *command).stdout == "found\n"


def test_pid_1_leads_a_session_and_has_no_parent(rl: Rl, service: str) -> None:
    fields = "cut -d ' ' -f 1,4,5,6 /proc/{}/stat"
    assert out(rl, "alpine", "sh", "-c", fields.format("1")) == "1 0 1 1\n"
    _, parent, group, session = rl("exec", service, "sh", "-c", fields.format("$$")).stdout.split()
    assert parent == "0"
    assert int(group) > 1
    assert int(session) > 1


@pytest.mark.parametrize("mask", ["000", "077"])
def test_umask_of_whoever_starts_it_changes_nothing(fresh_rl: Rl, mask: str) -> None:
    def masked(*command: str) -> str:
        line = f"umask {mask}; exec {shlex.join([*fresh_rl.command, *command])}"
        return subprocess.run(
            ["sh", "-c", line], env=fresh_rl.environment, check=True, capture_output=True, text=True
        ).stdout

    look = (
        "umask; stat -c '%a %n' /etc/hosts /etc/hostname /etc/resolv.conf /dev/null /dev/shm /w /v"
    )
    options = ("-w", "/w", "-v", "/v", "-u", "1000")
    shown = masked(
        "run", "-q", "-d", "--name", "masked", *options, "alpine", "sh", "-c", f"{look}; sleep 1000"
    )
    assert len(shown) == 65
    assert masked("exec", "masked", "sh", "-c", look).splitlines() == [
        "0022", "644 /etc/hosts", "644 /etc/hostname", "644 /etc/resolv.conf", "666 /dev/null",
        "1777 /dev/shm", "755 /w", "755 /v",
    ]  # fmt: skip
    fresh_rl("rm", "-f", "-v", "masked")


def test_descriptors_that_are_left_open_stay_outside(rl: Rl, service: str) -> None:
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
    command = ("ls", "/proc/self/fd")
    for arguments in ("run", "--rm", "alpine", *command), ("exec", service, *command):
        process = rl.start(*arguments, stdout=subprocess.PIPE, pass_fds=opened)
        assert process.communicate(timeout=PATIENCE)[0].split() == [b"0", b"1", b"2", b"3"]
    for fd in opened:
        os.close(fd)


def test_home_is_that_of_the_user_unless_it_is_given(rl: Rl, service: str) -> None:
    script = ("sh", "-c", "echo $HOME")
    for user, home in ("0", "/root"), ("app", "/home/app"), ("1000", "/home/app"), ("4321", "/"):
        assert out(rl, "-u", user, "alpine", *script) == f"{home}\n"
        assert rl("exec", "-u", user, service, *script).stdout == f"{home}\n"
    assert out(rl, "-e", "HOME=/given", "-u", "app", "alpine", *script) == "/given\n"
    assert out(rl, "-e", "HOME=", "-u", "app", "alpine", *script) == "\n"


def test_groups_are_those_of_the_container_and_the_users_own_is_one_of_them(
    rl: Rl, service: str
) -> None:
    # Else he could leave his group by a set-group-id program, and what a file refuses to the
    # group he would get as one of the others.
    script = ("grep", "^Groups:", "/proc/self/status")
    for user, groups in ("0", "0"), ("4321:4322", "4322"), ("app", "100 1000"), ("app:0", "0"):
        assert out(rl, "-u", user, "alpine", *script).split()[1:] == groups.split()
        assert rl("exec", "-u", user, service, *script).stdout.split()[1:] == groups.split()


def test_arguments_and_variables_are_passed_on_byte_by_byte(rl: Rl, service: str) -> None:
    values = ["", " ", "a\nb", "'\"\\$(x)`", "é", os.fsdecode(b"\xff\xfe"), "-x", "--", "%s"]
    expected = "".join(f"{value}|" for value in values)
    script = ("sh", "-c", 'printf "%s|" "$@"', "sh", *values)
    assert out(rl, "alpine", *script) == expected
    assert rl("exec", service, *script).stdout == expected
    for value in values:
        script = ("sh", "-c", 'printf "%s|" "$A"')
        assert out(rl, "-e", f"A={value}", "alpine", *script) == f"{value}|"


# Its terminal


def test_all_three_streams_are_the_terminal_and_it_is_the_controlling_one(rl: Rl) -> None:
    script = "for fd in 0 1 2; do test -t $fd && echo $fd; done; echo out > /dev/tty; tty"
    found = out(rl, "-t", "--read-only", "alpine", "sh", "-c", script)
    assert found.split() == ["0", "1", "2", "out", "/dev/pts/0"]


def test_process_without_a_terminal_can_be_beside_one_that_has_it(rl: Rl) -> None:
    rl("run", "-d", "-t", "--name", "typed", "alpine", "sleep", "1000")
    assert rl("exec", "typed", "sh", "-c", "tty; test -t 1", check=False).stdout == "not a tty\n"
    script = "stat -c %u $(tty); echo > $(tty) && tty"
    found = rl("exec", "-t", "-u", "1000", "typed", "sh", "-c", script).stdout
    assert found.split() == ["1000", "/dev/pts/1"]
    rl("rm", "-f", "typed")


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (999, 9999)])
def test_terminal_of_a_size_that_makes_no_sense_works(
    rl: Rl, debian: str, size: tuple[int, int]
) -> None:
    rl("pull", "-q", debian)
    shown = pexpect.run(
        shlex.join([*rl.command, "run", "--rm", "-it", debian, "stty", "size"]),
        env=os.environ | rl.environment, encoding="utf-8", timeout=PATIENCE, dimensions=size,
    )  # fmt: skip
    assert shown == f"{size[0]} {size[1]}\r\n"


def test_terminals_can_be_made_inside(rl: Rl) -> None:
    script = "exec 3<>/dev/ptmx; ls /dev/pts; stat -c %a /dev/ptmx /dev/pts/ptmx"
    found = out(rl, "-u", "1000", "alpine", "sh", "-c", script)
    assert found.split() == ["0", "ptmx", "777", "666"]


# Mounts


def test_whatever_can_be_bound_is_bound_also_read_only(rl: Rl, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "regular").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        options = []
        for name in "fifo", "regular", "socket":
            for mode in "rw", "ro":
                options += ["-v", f"{tmp_path}/{name}:/m/{name}.{mode}:{mode}"]
        found = out(
            rl, *options, "alpine", "sh", "-c", "stat -c '%n %F' /m/*; mount | grep -c '/m/.* (ro'"
        )
    assert found.splitlines() == [
        "/m/fifo.ro fifo", "/m/fifo.rw fifo", "/m/regular.ro regular empty file",
        "/m/regular.rw regular empty file", "/m/socket.ro socket", "/m/socket.rw socket", "3",
    ]  # fmt: skip


OPTIONS: dict[str, set[str]] = {
    "ro": {"ro"},
    "rw": set(),
    "noexec": {"noexec"},
    "exec": set(),
    "nosuid": {"nosuid"},
    "suid": set(),
    "nodev": {"nodev"},
}
FLAGS = {flag for flags in OPTIONS.values() for flag in flags}


def test_each_option_of_a_mount_is_in_force_and_no_other(rl: Rl, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    arguments = []
    for name in OPTIONS:
        arguments += ["-v", f"{tmp_path}:/d/{name}:{name}", "-v", f"{file}:/f/{name}:{name}"]
        arguments += ["-v", f"options:/v/{name}:{name}", "--tmpfs", f"/t/{name}:{name}"]
    found = mount_flags(out(rl, *arguments, "alpine", "cat", "/proc/self/mountinfo"))
    for name, flags in OPTIONS.items():
        for kind in "d", "f", "v":
            assert found[f"/{kind}/{name}"] & FLAGS == flags
        usual = {"noexec", "nosuid", "nodev"} - {f"no{name}"}
        assert found[f"/t/{name}"] & FLAGS == usual | flags


def test_tmpfs_takes_the_options_of_mount(rl: Rl) -> None:
    flags = ("relatime", "noatime", "nodiratime", "sync", "dirsync")
    usual = ("strictatime", "atime", "diratime", "async", "defaults")
    arguments = [item for name in (*flags, *usual) for item in ("--tmpfs", f"/t/{name}:{name}")]
    found = mount_flags(out(rl, *arguments, "alpine", "cat", "/proc/self/mountinfo"))
    for name in flags:
        assert name in found[f"/t/{name}"]
    for name in usual:
        assert not {"noatime", "nodiratime", "sync", "dirsync"} & found[f"/t/{name}"]
    assert "relatime" not in found["/t/strictatime"]
    done = rl("run", "--rm", "--tmpfs", "/t:nonsense", "alpine", "true", check=False)
    assert (done.returncode, "cannot mount tmpfs on /t" in done.stderr) == (125, True)


def test_slashes_and_dots_in_a_target_mean_what_they_mean_everywhere(
    rl: Rl, tmp_path: Path
) -> None:
    (tmp_path / "there").touch()
    for target in "//a//b", "/a/b/", "/a/./c/../b":
        assert out(rl, "-v", f"{tmp_path}:{target}", "alpine", "ls", "/a/b") == "there\n"


def test_tmpfs_has_the_mode_of_its_place_or_the_one_given(
    rl: Rl, image: Callable[..., str]
) -> None:
    name = image(directory("closed", 0o712), directory("given", 0o700))
    options = ("--tmpfs", "/closed", "--tmpfs", "/given:mode=1770", "--tmpfs", "/new")
    found = out(rl, *options, name, "stat", "-c", "%a", "/closed", "/given", "/new")
    assert found.split() == ["712", "1770", "1777"]


def test_kernel_file_systems_keep_their_modes(rl: Rl, image: Callable[..., str]) -> None:
    name = image(directory("proc", 0o700), directory("sys", 0o700), directory("dev", 0o700))
    found = out(rl, name, "stat", "-c", "%a", "/proc", "/sys", "/dev")
    assert found.split() == ["555", "555", "755"]


@pytest.mark.parametrize("target", ["/", "//", "/proc", "/x/../proc"])
@pytest.mark.parametrize("kind", ["--tmpfs", "-v"])
def test_root_and_proc_cannot_be_mounted_over(rl: Rl, kind: str, target: str) -> None:
    value = target if kind == "--tmpfs" else f"/tmp:{target}"
    done = rl("run", "--rm", kind, value, "alpine", "true", check=False)
    assert done.returncode == 125
    assert "the target cannot be" in done.stderr


def test_mounts_of_the_kernel_and_devices_allow_no_more_than_they_must(rl: Rl) -> None:
    table = mount_flags(out(rl, "alpine", "cat", "/proc/self/mountinfo"))
    strict = {"nosuid", "nodev", "noexec"}
    for path in "/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys":
        assert {"ro", *strict} <= table[path], path
    for path in "/proc", "/dev/shm", "/dev/mqueue":
        assert strict <= table[path], path
    for name in "null", "zero", "full", "tty", "random", "urandom":
        assert {"nosuid", "noexec"} <= table[f"/dev/{name}"], name
    assert {"nosuid", "noexec"} <= table["/dev/pts"]


def test_masked_directories_are_empty_directories(rl: Rl) -> None:
    script = "stat -c '%F %h' /home /sys/firmware; ls -A /home /sys/firmware"
    found = out(rl, "--security-opt", "mask=/home", "alpine", "sh", "-c", script).splitlines()
    assert found == ["directory 2", "directory 2", "/home:", "", "/sys/firmware:"]


def test_propagation_is_private_unless_asked_for(rl: Rl, tmp_path: Path) -> None:
    kinds = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
    arguments = [item for kind in kinds for item in ("-v", f"{tmp_path}:/{kind}:{kind}")]
    arguments += ["-v", f"{tmp_path}:/usual", "-v", "propagated:/volume", "--tmpfs", "/tmpfs"]
    table = out(rl, *arguments, "alpine", "cat", "/proc/self/mountinfo")
    shared = {line.split()[4] for line in table.splitlines() if " shared:" in line}
    assert shared == {"/shared", "/rshared"}
    # What the host mounts there would show up, too, had nobody asked for it.
    followers = {line.split()[4] for line in table.splitlines() if " master:" in line}
    assert followers <= {"/slave", "/rslave", "/shared", "/rshared"}


def test_mount_points_are_made_for_a_read_only_root(rl: Rl, tmp_path: Path) -> None:
    mounted = ("-v", f"{tmp_path}:/new/one", "--tmpfs", "/new/two", "-w", "/new/three")
    assert out(rl, "--read-only", *mounted, "alpine", "ls", "/new") == "one\nthree\ntwo\n"


# What is no name


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "-x", "a b", "é", "a\n"])
def test_name_that_could_mean_something_else_is_refused(rl: Rl, name: str) -> None:
    done = rl("create", f"--name={name}", "alpine", "true", check=False)
    assert done.returncode == 125
    assert done.stderr.startswith(f"rl: invalid container name {name!r}: only ")


def test_hostname_is_as_long_as_the_kernel_allows(rl: Rl) -> None:
    longest = "h" * 64
    assert out(rl, "--hostname", longest, "alpine", "hostname") == f"{longest}\n"
    done = rl("run", "--rm", "--hostname", f"{longest}h", "alpine", "true", check=False)
    assert done.returncode == 125
    assert "invalid hostname" in done.stderr


@pytest.mark.parametrize("signal", ["NOSUCH", "0", "65", "-1", "SIGRTMAX+1", ""])
def test_signal_that_is_none_is_refused(rl: Rl, service: str, signal: str) -> None:
    for command in ("kill", f"--signal={signal}", service), ("run", f"--stop-signal={signal}", "x"):
        done = rl(*command, check=False)
        assert (done.returncode, done.stderr) == (125, f"rl: invalid signal: {signal}\n")


def test_directory_that_is_not_there_is_one_error(rl: Rl, service: str) -> None:
    done = rl("exec", "-w", "/not/there", service, "true", check=False)
    assert done.returncode == 126
    assert done.stderr == (
        "rl: cannot use /not/there as the working directory: No such file or directory\n"
    )


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_resolver_is_configured_where_the_images_file_is_a_link(
    rl: Rl, image: Callable[..., str]
) -> None:
    # As systemd-resolved leaves it behind, and dangling.
    stub = "../run/systemd/resolve/stub-resolv.conf"
    name = image(directory("etc", 0o755), link("etc/resolv.conf", stub))
    script = "readlink /etc/resolv.conf; cat /etc/resolv.conf"
    assert out(rl, "--dns", "192.0.2.1", name, "sh", "-c", script) == (
        f"{stub}\nnameserver 192.0.2.1\n"
    )


@pytest.mark.parametrize("place", ["dev", "proc", "sys"])
def test_file_system_of_the_kernel_goes_where_a_link_of_the_image_leads_inside(
    rl: Rl, image: Callable[..., str], place: str
) -> None:
    name = image(link(place, "/elsewhere"), directory("elsewhere", 0o755))
    there = {"dev": "null", "proc": "self", "sys": "kernel"}[place]
    script = f"ls -d /elsewhere/{there}; ls -ld /elsewhere/.; wc -l < /proc/self/mountinfo"
    shown = out(rl, name, "sh", "-c", script).splitlines()
    assert shown[0] == f"/elsewhere/{there}"
    # What is masked in /proc is masked where it is.
    hidden = out(rl, name, "sh", "-c", "cat /proc/timer_list /proc/keys 2>/dev/null | wc -c")
    assert hidden == "0\n"


def test_link_of_the_image_to_nowhere_is_an_error_that_names_the_mount(
    rl: Rl, image: Callable[..., str]
) -> None:
    done = rl("run", "--rm", image(link("dev", "/nowhere")), "true", check=False)
    assert done.returncode == 125
    assert done.stderr == (
        "rl: cannot mount tmpfs on /dev in the container: there is a symlink that leads nowhere\n"
    )


def test_terminal_needs_no_root_that_can_be_written_to(rl: Rl) -> None:
    script = "tty; test -c /dev/console && echo $TERM; touch /x 2>/dev/null || echo kept"
    shown = out(rl, "-t", "--read-only", "alpine", "sh", "-c", script)
    assert shown.split() == ["/dev/pts/0", "xterm", "kept"]
    assert out(rl, "alpine", "sh", "-c", 'echo "<$TERM>"') == "<>\n"


def test_detached_command_that_cannot_run_says_so(rl: Rl, service: str) -> None:
    cases = {
        ("nosuch",): (127, 'cannot execute "nosuch": executable file not found in $PATH'),
        ("/etc",): (126, 'cannot execute "/etc": Permission denied'),
        ("-w", "/nosuch", "true"): (126, "cannot use /nosuch as the working directory"),
        ("-u", "nosuch", "true"): (125, "unable to find user nosuch"),
    }
    for (*options, command), (code, said) in cases.items():
        done = rl("exec", "-d", *options, service, command, check=False)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_many_commands_at_once_have_their_own_exit_codes(rl: Rl, service: str) -> None:
    started = [
        rl.start("exec", service, "sh", "-c", f"sleep 0.{code}; exit {code}") for code in range(12)
    ]
    assert [process.wait(PATIENCE) for process in started] == list(range(12))
    assert rl("exec", service, "sh", "-c", "exit 300", check=False).returncode == 300 % 256


def test_flags_that_the_host_has_on_a_mount_stay_when_it_is_bound(rl: Rl) -> None:
    # A user cannot take nosuid and nodev away, nor mount without them.
    (line,) = [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4] == "/sys"
    ]
    locked = {"nosuid", "nodev", "noexec"} & set(line.split()[5].split(","))
    for option in ("ro", "rw"):
        table = out(rl, "-v", f"/sys:/x:{option}", "alpine", "cat", "/proc/self/mountinfo")
        flags = mount_flags(table)["/x"]
        assert locked <= flags
        assert ("ro" in flags) == (option == "ro" or "ro" in line.split()[5].split(","))
