"""The table "Beside Podman" of docs/limits.md: the same flags given to rl and to Podman.

Prints Markdown; asserts nothing. It runs in the guest, with Podman on its disk:

    RL_GUEST_PACKAGES=podman,crun,slirp4netns,fuse-overlayfs scripts/guest --seconds 1800 \
        sh -c 'cd "$RL_GUEST_PREFIX/src" && python -m tests.guest.podman_table'

With --kernel debian it has cpuset and io.weight as well, and takes much longer.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from typing import Final

IMAGE: Final = "localhost/busybox"
HOG: Final = "dd if=/dev/zero of=/dev/null count=1 bs="
_GROUP: Final = "/sys/fs/cgroup/"
_TOOLS: Final = {"rl": ["rl"], "podman": ["podman", "--cgroup-manager=systemd", "--runtime=crun"]}
_WIDTH: Final = 100
# Of QEMU and of User-mode Linux.
_DISKS: Final = ("/dev/vda", "/dev/ubda")


def show(*files: str) -> str:
    """Return a command that prints files of the container's cgroup, each on one line."""
    names = " ".join(f"{_GROUP}{file}" for file in files)
    return f'sh -c \'cat {names} 2>&1 | tr "\\n" " "\''


# What is run in a container with these flags.
_RUNS: Final = {
    "-m 32m --memory-swap 32m": HOG + "64M",
    "-m 32m": HOG + "48M",
    "--memory-swap 96m -m 32m": show("memory.max", "memory.swap.max"),
    "--memory-reservation 16m": show("memory.low"),
    "--cpus 0.5": show("cpu.max"),
    "--cpu-quota 20000 --cpu-period 50000": show("cpu.max"),
    "--cpuset-cpus 1": show("cpuset.cpus.effective"),
    "--pids-limit 10": "sh -c 'for i in $(seq 15); do sleep 9 & done; wait'",
    "--oom-score-adj 500": "cat /proc/self/oom_score_adj",
    "--cgroupns private": "cat /proc/self/cgroup",
    "--storage-opt size=10m": "sh -c 'dd if=/dev/zero of=/file bs=1M count=20 2>&1 | head -n 1'",
}
# What is then to be read in the host's tree, of the container or above it.
_FILES: Final = {
    "--cpu-shares 2048": "cpu.weight",
    "--blkio-weight 500": "io.weight",
    "--device-read-bps DISK:1mb": "io.max",
    "--device-write-bps DISK:1mb": "io.max",
    "--device-read-iops DISK:100": "io.max",
    "--device-write-iops DISK:100": "io.max",
    "--cgroup-parent rl-jobs.slice": "",
}
_UPDATES: Final = {
    "update --memory 64m": "memory.max",
    "update --cpus 0.5": "cpu.max",
    "update --pids-limit 50": "pids.max",
}


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the two."""
    return subprocess.run(
        [*_TOOLS[tool], *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a person would see: the answer or the error, and the status unless it is 0."""
    failed = done.returncode and done.stderr.strip()
    lines = done.stderr.strip().split("\n")[-1:] if failed else done.stdout.split("\n")
    text = " ".join(" ".join(lines).split())
    text = text.replace("|", "\\|").replace("`", "'")
    text = f"`{text[:_WIDTH]}{'…' if len(text) > _WIDTH else ''}`" if text else ""
    return f"{text}{', ' if text else ''}{done.returncode}" if done.returncode else text or "0"


def flags(tool: str, options: str, command: str) -> str:
    """Return what a container with these options says."""
    script = f"exec {command}" if not command.startswith("sh -c") else command
    return said(
        run(tool, "run", "--rm", "--network=none", *options.split(), IMAGE, *_words(script))
    )


def _words(command: str) -> list[str]:
    import shlex

    words = shlex.split(command)
    return words[1:] if words[0] == "exec" else words


def tree(tool: str, options: str, file: str) -> str:
    """Return what the host's tree says of a container with these options."""
    options = options.replace("DISK", next(disk for disk in _DISKS if os.path.exists(disk)))
    made = run(
        tool, "run", "-d", "--network=none", "--name=it", *options.split(), IMAGE, "sleep", "99"
    )
    try:
        return said(made) if made.returncode else _read(tool, file)
    finally:
        run(tool, "rm", "-f", "-t", "0", "it") if tool == "podman" else run(tool, "rm", "-f", "it")


def _read(tool: str, file: str) -> str:
    pid = run(tool, "inspect", "-f", "{{.State.Pid}}", "it").stdout.strip()
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as text:
        path = text.read().strip().removeprefix("0::").removesuffix("/container")
    if not file:
        return f"`…/{'/'.join(path.split('/')[4:])[:60]}…`"
    places = [f"{_GROUP}{path}/container/{file}", f"{_GROUP}{path}/{file}"]
    for place in places if file in _UPDATES.values() else places[::-1]:
        try:
            with open(place, encoding="ascii") as text:
                # One that is not set is empty.
                if words := text.read().split():
                    return f"`{' '.join(words)}`"
        except FileNotFoundError:
            continue
    return "not set"


def live(tool: str) -> dict[str, str]:
    """Return what can be done to a container that runs."""
    made = run(tool, "run", "-d", "--network=none", "--name=it", "-m", "32m", IMAGE, "sleep", "999")
    if made.returncode:
        return dict.fromkeys((*_UPDATES, "pause", "stats"), said(made))
    found = {}
    try:
        for command, file in _UPDATES.items():
            done = run(tool, *command.split(), "it")
            found[command] = said(done) if done.returncode else _read(tool, file)
        done = run(tool, "pause", "it")
        state = run(tool, "inspect", "-f", "{{.State.Status}}", "it")
        found["pause"] = said(done) if done.returncode else said(state)
        run(tool, "unpause", "it")
        columns = "{{.CPUPerc}} {{.MemUsage}} {{.BlockIO}} {{.PIDs}}"
        found["stats"] = said(run(tool, "stats", "--no-stream", "--format", columns, "it"))
    finally:
        run(tool, "rm", "-f", "-t", "0", "it") if tool == "podman" else run(tool, "rm", "-f", "it")
    return found


def give_podman_the_image() -> None:
    """Import the same image: BusyBox and its links."""
    busybox = "/bin/busybox"
    names = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(busybox, "bin/busybox")
        for name in set(names.stdout.split()) - {"busybox"}:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    command = [*_TOOLS["podman"], "import", "-", f"{IMAGE}:latest"]
    subprocess.run(command, check=True, input=buffer.getvalue(), capture_output=True)


def main() -> None:
    """Print the table, a line as soon as it is known."""
    give_podman_the_image()
    versions = [run("podman", "--version").stdout.split()[-1]]
    versions += subprocess.run(
        ["crun", "--version"], check=True, capture_output=True, text=True
    ).stdout.split()[2:3]
    print(f"Podman {versions[0]}, crun {versions[1]}")  # noqa: T201
    print("| | `rl` | `podman` |\n| --- | --- | --- |")  # noqa: T201
    for shown, values in ((flags, _RUNS), (tree, _FILES)):
        for options, value in values.items():
            cells = " | ".join(shown(tool, options, value) for tool in _TOOLS)
            print(f"| `{options}` | {cells} |", flush=True)  # noqa: T201
    both = {tool: live(tool) for tool in _TOOLS}
    for command in both["rl"]:
        print(f"| `{command}` | {both['rl'][command]} | {both['podman'].get(command, '')} |")  # noqa: T201


if __name__ == "__main__":
    main()
