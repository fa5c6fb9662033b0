"""How long a container takes to start and an image to pull: rl beside Podman, crun and skopeo.

Run it with ``scripts/benchmark startup [--rounds N]``, on a machine that does nothing else. The
contestants take turns within each round; what is printed are the medians of all rounds, and their
ratio to rl's. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.shared import cache, quietly, table
from tests.support import images, leaks
from tests.support.registry import Registry, serve
from tests.support.runner import Rl

Step = Callable[[], None]


@dataclass(frozen=True)
class Contestant:
    """A command that is timed, and what has to be done before it each time."""

    name: str
    run: Step
    prepare: Step = lambda: None


def measure(contestants: list[Contestant], rounds: int) -> dict[str, float]:
    """Return the median of each contestant's times in seconds, taken in turns."""
    times: dict[str, list[float]] = {one.name: [] for one in contestants}
    for number in range(rounds + 1):
        for one in contestants:
            one.prepare()
            started = time.perf_counter()
            one.run()
            elapsed = time.perf_counter() - started
            # The first round fills the caches.
            if number:
                times[one.name].append(elapsed)
    return {name: statistics.median(taken) for name, taken in times.items()}


def report(title: str, medians: dict[str, float]) -> None:
    """Print a Markdown table; the first contestant is what the others are compared with."""
    first = next(iter(medians.values()))
    table(
        (title, "median ms", "ratio to rl"),
        ((name, f"{it * 1000:.0f}", f"{it / first:.2f}") for name, it in medians.items()),
    )


class Podman:
    """Podman on crun, with a store of its own."""

    def __init__(self, directory: Path, registry: Registry, *options: str) -> None:
        directory.mkdir()
        self.directory = directory
        self._base = ["podman", "--root", str(directory / "root"), "--runroot"]
        self._base += [str(directory / "run"), "--runtime", "crun", "--storage-driver", "overlay"]
        self._base += ["--cgroup-manager", "cgroupfs", *options]
        configuration = directory / "registries.conf"
        configuration.write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
        self._env = {
            "CONTAINERS_REGISTRIES_CONF": str(configuration),
            "TMPDIR": str(directory),
        }

    def __call__(self, *arguments: str) -> None:
        quietly(*self._base, *arguments, env=self._env)


@contextmanager
def podman(registry: Registry, *options: str, where: str | None = None) -> Iterator[Podman]:
    """Give out a Podman with its store below ``where``, and clean up after it."""
    directory = Path(tempfile.mkdtemp(prefix="rl-bench-", dir=where))
    one = Podman(directory / "podman", registry, *options)
    try:
        yield one
    finally:
        one("system", "migrate")
        leaks.remove_tree(directory)


def crun_bundle(directory: Path) -> Path:
    """Return a bundle for a rootless crun: busybox, unpacked into a directory."""
    bundle = directory / "bundle"
    root = bundle / "rootfs"
    root.mkdir(parents=True)
    subprocess.run(["tar", "-xC", root], input=images.busybox_layer(), check=True)
    quietly("crun", "spec", "--rootless", f"--bundle={bundle}")
    config = bundle / "config.json"
    text = config.read_text().replace('"terminal": true', '"terminal": false')
    config.write_text(text.replace('"sh"', '"true"'))
    return bundle


def startups(
    rl: Rl, peers: dict[str, Podman], image: str, bundle: Path | None, *options: str
) -> list[Contestant]:
    """Return the contestants that run `true` in a new container and remove it."""
    run = ("run", "--rm", *options)
    found = [Contestant("rl run", lambda: void(rl(*run, "alpine", "true")))]
    for name, peer in peers.items():
        found.append(Contestant(f"podman run, {name}", bound(peer, *run, image, "true")))
    if bundle is not None:
        crun = ("crun", "run", f"--bundle={bundle}", "benchmark")
        found.append(Contestant("crun run (a directory as root)", lambda: quietly(*crun)))
    return found


@contextmanager
def entries(rl: Rl, peers: dict[str, Podman], image: str) -> Iterator[list[Contestant]]:
    """Give the contestants that run `true` in a container that runs."""
    run = ("run", "-d", "--name", "entered", "--network", "none")
    sleep, enter = ("sleep", "100000"), ("exec", "entered", "true")
    rl(*run, "alpine", *sleep)
    for peer in peers.values():
        peer(*run, image, *sleep)
    yield [
        Contestant("rl exec", lambda: void(rl(*enter))),
        *(Contestant(f"podman exec, {name}", bound(one, *enter)) for name, one in peers.items()),
    ]
    rl("rm", "-f", "entered")
    for peer in peers.values():
        peer("rm", "-f", "entered")


def listings(rl: Rl, peer: Podman) -> list[Contestant]:
    """Return the contestants that only look."""
    return [
        Contestant("rl ps -a", lambda: void(rl("ps", "-a"))),
        Contestant("podman ps -a", bound(peer, "ps", "-a")),
        Contestant("rl --help", lambda: void(rl("--help"))),
        Contestant("podman --help", bound(peer, "--help")),
    ]


def pulls(
    rl: Rl, peers: dict[str, Podman], registry: Registry, directory: Path
) -> list[Contestant]:
    """Return the contestants that fetch and unpack a Debian image of three layers."""
    image = f"{registry.host}/library/debian"
    found = [
        Contestant(
            "rl pull",
            lambda: void(rl("pull", "-q", "debian")),
            lambda: void(rl("rmi", "debian", check=False)),
        )
    ]
    for name, peer in peers.items():
        found.append(
            Contestant(
                f"podman pull, {name}",
                bound(peer, "pull", "-q", image),
                bound(peer, "rmi", "-f", "-i", image),
            )
        )
    layout = directory / "copied"
    copy = ("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{image}", f"oci:{layout}")
    found.append(
        Contestant(
            "skopeo copy, nothing unpacked",
            lambda: quietly(*copy),
            lambda: leaks.remove_tree(layout),
        )
    )
    return found


def bound(peer: Podman, *arguments: str) -> Step:
    """Return a call of Podman to be made later."""
    return lambda: peer(*arguments)


def void(_: object) -> None:
    """Drop a result."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:

        def made(where: str | None) -> tuple[Path, Rl, dict[str, Podman]]:
            """Return a directory below ``where``, and contestants with their stores there."""
            directory = Path(tempfile.mkdtemp(prefix="rl-bench-", dir=where))
            stack.callback(leaks.remove_tree, directory)
            rl = Rl(directory / "rl", registry.host)
            rl.prepare()
            fuse = ("--storage-opt", "overlay.mount_program=/usr/bin/fuse-overlayfs")
            peers = {
                "fuse-overlayfs": stack.enter_context(podman(registry, *fuse, where=where)),
                "kernel overlay": stack.enter_context(podman(registry, where=where)),
            }
            return directory, rl, peers

        served = Path(tempfile.mkdtemp(prefix="rl-bench-"))
        stack.callback(leaks.remove_tree, served)
        registry = stack.enter_context(serve(served / "registry"))
        images.busybox(served / "busybox")
        registry.push(f"oci:{served}/busybox:latest", "library/alpine")
        registry.push(f"oci:{images.debian(cache())}:latest", "library/debian")
        directory, rl, peers = made(None)
        image = f"{registry.host}/library/alpine"
        none = startups(rl, peers, image, crun_bundle(directory), "--network", "none")
        report("start, no network", measure(none, rounds))
        report("start, default network", measure(startups(rl, peers, image, None), rounds))
        with entries(rl, peers, image) as contestants:
            report("enter", measure(contestants, rounds))
        report("look", measure(listings(rl, peers["kernel overlay"]), rounds))
        # How quickly ext4 makes files depends on how many it has just removed.
        for title, where in (("pull", None), ("pull, stores in memory", "/dev/shm")):
            directory, rl, peers = made(where)
            contestants = pulls(rl, peers, registry, directory)
            report(title, measure(contestants, max(3, rounds // 3)))


if __name__ == "__main__":
    main()
