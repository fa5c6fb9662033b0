"""`rl run` on a real image, in real namespaces, on our own overlay."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.containers.support import RUN, out, read_line
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE

# Exit codes


@pytest.mark.parametrize("code", [0, 1, 125, 255])
def test_exit_code_is_the_commands(rl: Rl, code: int) -> None:
    assert rl(*RUN, "alpine", "sh", "-c", f"exit {code}", check=False).returncode == code


def test_signal_that_ends_the_command_is_128_and_its_number(rl: Rl) -> None:
    done = rl(*RUN, "--init", "alpine", "sh", "-c", "kill -TERM $$", check=False)
    assert done.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("no-such-program", 127, "executable file not found in $PATH"),
        ("/no/such/program", 127, "No such file or directory"),
        ("/etc", 126, "Permission denied"),
        ("/etc/passwd", 126, "Permission denied"),
    ],
)
@pytest.mark.parametrize("init", [(), ("--init",)])
def test_command_that_cannot_run_says_why(
    rl: Rl, command: str, code: int, message: str, init: tuple[str, ...]
) -> None:
    done = rl(*RUN, *init, "alpine", command, check=False)
    assert (done.returncode, done.stderr) == (
        code,
        f'rl: cannot execute "{command}": {message}\n',
    )


def test_our_own_failure_is_125_and_one_line(rl: Rl) -> None:
    done = rl(*RUN, "-v", "/no/such/directory:/x", "alpine", "true", check=False)
    assert (done.returncode, done.stderr) == (
        125,
        "rl: cannot mount /no/such/directory: no such file or directory (create it first)\n",
    )


def test_limits_that_are_not_in_force_are_told(rl: Rl) -> None:
    done = rl(*RUN, "--cgroups=disabled", "-m=100m", "alpine", "true")
    assert done.stderr == (
        "rl: warning: --cgroups=disabled: the container runs without its limits\n"
    )
    assert rl(*RUN, "--cgroups=disabled", "alpine", "true").stderr == ""


# Streams


def test_standard_streams_are_kept_apart(rl: Rl) -> None:
    done = rl(*RUN, "alpine", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_input_reaches_the_command_only_when_asked_for(rl: Rl) -> None:
    assert out(rl, "-i", "alpine", "cat", input="hello") == "hello"
    assert out(rl, "alpine", "cat", input="hello") == ""


def test_command_that_does_not_read_its_input_is_not_waited_for(rl: Rl) -> None:
    assert out(rl, "-i", "alpine", "echo", "done", input="x" * 1_000_000) == "done\n"


def test_megabytes_flow_both_ways_at_once(rl: Rl) -> None:
    data = os.urandom(8 << 20).hex()
    assert out(rl, "-i", "alpine", "cat", input=data) == data


def test_output_that_nobody_reads_ends_the_writer(rl: Rl) -> None:
    reader, writer = os.pipe()
    # Not as PID 1, for which the signal would not count.
    process = rl.start(*RUN, "alpine", "sh", "-c", "yes; exit $?", stdout=writer)
    os.close(writer)
    assert os.read(reader, 4) == b"y\ny\n"
    os.close(reader)
    assert process.wait(PATIENCE) == 128 + signal.SIGPIPE


def test_standard_output_can_be_opened_again_by_any_user(rl: Rl) -> None:
    assert out(rl, "-u", "1234", "alpine", "sh", "-c", "echo again > /dev/stdout") == "again\n"


def test_no_descriptor_of_ours_leaks_in(rl: Rl) -> None:
    # ls itself opens the directory that it lists.
    assert out(rl, "alpine", "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_good_as_the_null_device(rl: Rl, closed: str) -> None:
    command = shlex.join([*rl.command, *RUN, "-i", "alpine", "sh", "-c", "cat; echo out; exit 3"])
    done = subprocess.run(
        ["sh", "-c", f"exec {command} {closed}"],
        env=rl.environment, check=False, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (3, b"")


def test_output_that_the_disk_does_not_take_is_an_error(rl: Rl) -> None:
    with open("/dev/full", "w") as full:
        process = rl.start(*RUN, "alpine", "echo", "x", stdout=full, stderr=subprocess.PIPE)
        _, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 125
    assert complaint == b"rl: cannot write the container's output: No space left on device\n"


# Identity


@pytest.mark.parametrize(
    ("network", "capabilities"),
    # What a program of ours connects cannot make up packets: CAP_NET_RAW is missing.
    [("none", "00000000a80425fb"), ("pasta", "00000000a80405fb")],
)
def test_root_inside_has_dockers_capabilities_and_nothing_more(
    rl: Rl, network: str, capabilities: str
) -> None:
    status = out(rl, "--network", network, "alpine", "cat", "/proc/self/status")
    found = dict(re.findall(r"^(Cap\w+|NoNewPrivs):\s+(\w+)$", status, re.MULTILINE))
    assert found == {
        "CapInh": "0" * 16,
        "CapPrm": capabilities,
        "CapEff": capabilities,
        "CapBnd": capabilities,
        "CapAmb": "0" * 16,
        "NoNewPrivs": "0",
    }


def test_other_users_have_no_capabilities(rl: Rl) -> None:
    status = out(rl, "-u", "1000:1000", "alpine", "cat", "/proc/self/status")
    found = dict(re.findall(r"^(Uid|Gid|CapPrm|CapEff):\s+(\w+)", status, re.MULTILINE))
    assert found == {"Uid": "1000", "Gid": "1000", "CapPrm": "0" * 16, "CapEff": "0" * 16}


def test_no_new_privileges_is_there_for_the_asking(rl: Rl) -> None:
    asked = out(
        rl, "--security-opt", "no-new-privileges", "alpine", "grep", "NoNew", "/proc/1/status"
    )
    assert asked.split() == ["NoNewPrivs:", "1"]


def test_unknown_user_is_an_error(rl: Rl) -> None:
    done = rl(*RUN, "-u", "nobody-here", "alpine", "true", check=False)
    assert done.returncode == 125
    assert "unable to find user nobody-here" in done.stderr


def test_user_outside_of_the_mapped_range_is_an_error(rl: Rl) -> None:
    done = rl(*RUN, "-u", "4000000000", "alpine", "true", check=False)
    assert done.returncode == 125
    assert "outside of the mapped ranges" in done.stderr


# Isolation


def test_processes_hostname_and_mounts_are_the_containers_own(rl: Rl) -> None:
    script = "echo $$; hostname; ls /proc | grep -c '^[0-9]'"
    pid, hostname, count = out(rl, "--hostname", "box", "alpine", "sh", "-c", script).split()
    assert (pid, hostname) == ("1", "box")
    assert int(count) <= 4


def test_environment_of_the_host_stays_outside(rl: Rl) -> None:
    env = out(rl, "--network", "none", "alpine", "env", env={"SECRET": "x"})
    names = {line.split("=")[0] for line in env.splitlines()}
    assert names == {"PATH", "HOSTNAME", "HOME"}


def test_without_a_network_there_is_loopback_only(rl: Rl) -> None:
    script = "cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /sys/class/net/lo/operstate"
    found = out(rl, "--network", "none", "alpine", "sh", "-c", script).split()
    assert found[0] == "lo"
    assert len(found) == 2


def test_kernel_tunables_are_read_only_and_secrets_masked(rl: Rl) -> None:
    script = """
        for file in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/uevent_helper; do
            echo x 2>/dev/null > $file && echo "wrote $file"
        done
        wc -c < /proc/keys; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v ':$' | grep .
        true
    """
    assert out(rl, "alpine", "sh", "-c", script).split() == ["0"]


def test_device_directory_is_minimal_and_works(rl: Rl) -> None:
    names = out(rl, "alpine", "ls", "/dev").split()
    assert names == sorted(
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
    )
    script = "head -c 4 /dev/zero | wc -c; echo x > /dev/null; echo x > /dev/full || echo full"
    assert out(rl, "alpine", "sh", "-c", f"({script}) 2>/dev/null").split() == ["4", "full"]


def test_read_only_root_leaves_only_mounts_writable(rl: Rl) -> None:
    script = "touch /x || touch /run/x && ls /run"
    done = rl(*RUN, "--read-only", "--tmpfs", "/run:size=64k", "alpine", "sh", "-c", script)
    assert done.stdout == "x\n"
    assert "Read-only file system" in done.stderr


def test_what_a_container_wrote_is_gone_in_the_next(rl: Rl) -> None:
    out(rl, "alpine", "sh", "-c", "echo mine > /etc/motd; touch /new; rm /etc/passwd")
    assert out(rl, "alpine", "sh", "-c", "cat /etc/motd; ls /new /etc/passwd 2>&1; true") == (
        "hello from busybox\nls: /new: No such file or directory\n/etc/passwd\n"
    )


def test_two_containers_of_one_image_see_nothing_of_each_other(rl: Rl) -> None:
    script = "touch /first; echo up; read _; ls /second"
    with rl.start(
        *RUN, "-i", "alpine", "sh", "-c", script,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as first:  # fmt: skip
        assert read_line(first) == b"up\n"
        found = rl(*RUN, "alpine", "sh", "-c", "touch /second; ps; ls /first", check=False)
        assert "read _" not in found.stdout
        assert "/first: No such file" in found.stderr
        _, complaint = first.communicate(b"\n", PATIENCE)
        assert b"/second: No such file" in complaint


def test_session_keyring_of_the_host_stays_outside(rl: Rl, debian: str) -> None:
    # KEYCTL_GET_KEYRING_ID of the session keyring; no library wraps it.
    keyctl = 250 if os.uname().machine == "x86_64" else 219
    code = f"print syscall({keyctl}, 0, -3, 0)"
    ours = subprocess.run(["perl", "-e", code], capture_output=True, text=True, check=True).stdout
    rl("pull", "-q", debian)
    assert out(rl, "debian", "perl", "-e", code) != ours


# Options


def test_environment_comes_from_options_and_files(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nA=file\nB=file\nHOSTS\n")
    script = 'echo "$A $B $C $HOSTS"'
    arguments = ["-e", "A=option", "-e", "C", "--env-file", str(tmp_path / "env")]
    environment = {"C": "host", "HOSTS": "taken"}
    found = out(rl, *arguments, "alpine", "sh", "-c", script, env=environment)
    assert found == "option file host taken\n"


def test_working_directory_is_made_if_the_image_lacks_it(rl: Rl) -> None:
    assert out(rl, "-w", "/deep/down", "alpine", "pwd") == "/deep/down\n"


def test_entrypoint_is_replaced(rl: Rl) -> None:
    assert out(rl, "--entrypoint", "echo", "alpine", "a", "b") == "a b\n"


def test_init_reaps_what_its_child_left(rl: Rl) -> None:
    # The inner shell ends before its child, which then has PID 1 for a parent.
    # A zombie keeps its name.
    script = "sh -c 'sleep 0.1 &'; while grep -qx sleep /proc/[0-9]*/comm; do :; done; echo reaped"
    assert out(rl, "--init", "alpine", "sh", "-c", script) == "reaped\n"
    assert out(rl, "--init", "alpine", "cat", "/proc/1/cmdline").startswith("/dev/init\0")


def test_etc_names_the_hosts(rl: Rl) -> None:
    arguments = ["--network", "none", "--hostname", "box", "alpine"]
    hosts = out(rl, *arguments, "cat", "/etc/hosts")
    assert re.search(r"^127\.0\.0\.1\s+localhost$", hosts, re.MULTILINE)
    assert re.search(r"^127\.0\.1\.1\s+box$", hosts, re.MULTILINE)
    assert out(rl, *arguments, "cat", "/etc/hostname") == "box\n"
    assert out(rl, "alpine", "cat", "/etc/resolv.conf") == Path("/etc/resolv.conf").read_text()


# Signals and the end


def test_signals_are_passed_on(rl: Rl) -> None:
    script = """
        trap "echo term; exit 3" TERM; trap "echo hup" HUP
        echo up; while :; do sleep 0.1; done
    """
    with rl.start(*RUN, "alpine", "sh", "-c", script, stdout=subprocess.PIPE) as process:
        assert read_line(process) == b"up\n"
        process.send_signal(signal.SIGHUP)
        assert read_line(process) == b"hup\n"
        process.send_signal(signal.SIGTERM)
        assert read_line(process) == b"term\n"
        assert process.wait(PATIENCE) == 3


def test_third_interrupt_kills_what_ignores_it(rl: Rl) -> None:
    script = "trap 'echo int' INT; echo up; while :; do sleep 0.1; done"
    with rl.start(*RUN, "alpine", "sh", "-c", script, stdout=subprocess.PIPE) as process:
        assert read_line(process) == b"up\n"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            assert read_line(process) == b"int\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 128 + signal.SIGKILL


def test_processes_left_behind_end_with_pid_1(rl: Rl) -> None:
    assert out(rl, "alpine", "sh", "-c", "sleep 1000 & echo started") == "started\n"


def test_name_is_given_once(rl: Rl) -> None:
    arguments = (*RUN, "--name", "only", "alpine", "true")
    with rl.start(
        *RUN, "-i", "--name", "only", "alpine", "sh", "-c", "echo up; cat",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert read_line(process) == b"up\n"
        done = rl(*arguments, check=False)
        assert done.returncode == 125
        assert 'the container name "only" is already in use' in done.stderr
        process.communicate(timeout=PATIENCE)
    assert rl(*arguments).returncode == 0


def test_twenty_at_once_all_succeed(rl: Rl) -> None:
    def one(number: int) -> str:
        return out(rl, "alpine", "sh", "-c", f"echo {number} > /same; sleep 0.2; cat /same")

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(one, range(20))) == [f"{number}\n" for number in range(20)]
