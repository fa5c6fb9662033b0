"""How fast our overlay is: fuse-overlay beside the kernel's overlayfs and every fuse-overlayfs.

Run it with ``scripts/benchmark overlay``, on a machine that does nothing else; --help has the
options. All take turns within each round, without root, in one user namespace; what is printed are
the medians of all rounds. Nothing is asserted, but who does the work wrong is shown as failed.

Cold is a new mount, of layers whose files are in the page cache of the file system below; warm is
the same again in that mount. $TMPDIR, or else /var/tmp, holds layers, uppers and archives.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.benchmarks import chart
from tests.benchmarks.contestants import (
    KERNEL,
    OURS,
    Contestant,
    Mount,
    MountFailed,
    PeakMemory,
    last_line,
    mounted,
    ours,
    peers,
)
from tests.benchmarks.shared import cache, table
from tests.benchmarks.workloads import Layers, Sizes, Step, Workload, workloads
from tests.support import images, leaks

TIMEOUT = 180


class StepFailed(Exception):
    """A contestant did not do the work; one line that says why."""


@dataclass
class Result:
    """What one contestant took for one step: a figure for each round."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Seconds of the server's processor time; empty without a server."""
    memory: list[float] = field(default_factory=list)
    """The server's highest PSS, in MiB; empty without a server."""
    outputs: list[str] = field(default_factory=list)
    failed: str = ""


Results = dict[str, dict[str, Result]]
"""By row of the table, which is a step of a workload, and by contestant."""

Requests = dict[str, dict[str, int]]
"""How many of each opcode our server was asked, by workload."""


def row(workload: Workload, step: Step) -> str:
    """Return the name of a step among all workloads."""
    return f"{workload.title}, {step.name}" if step.name else workload.title


class Race:
    """All contestants, all workloads, and what came of it so far."""

    def __init__(self, contestants: list[Contestant], layers: Layers, area: Path) -> None:
        self.results: Results = {}
        self.requests: Requests = {}
        self._contestants = contestants
        self._layers = layers
        area.mkdir()
        # Below a "top" directory ext4 puts each new one into a block group of its own. Otherwise
        # creating files has taken up to ten times longer here, for everyone, by where ext4 looks
        # for free inodes. Other file systems have no such flag.
        subprocess.run(["chattr", "+T", area], stderr=subprocess.DEVNULL, check=False)
        self._places = (area / str(number) for number in itertools.count())

    def run(self, chosen: list[Workload], rounds: int) -> None:
        """Let all take turns."""
        for number in range(rounds):
            for workload in chosen:
                print(f"round {number + 1} of {rounds}: {workload.title}", file=sys.stderr)
                # Not always the same one pays for what the one before it left to be written.
                shift = number % len(self._contestants)
                for one in self._contestants[shift:] + self._contestants[:shift]:
                    self._do(workload, one)
        self._compare_outputs()

    def _do(self, workload: Workload, contestant: Contestant) -> None:
        lowers = [path for name in workload.layers for path in self._layers(name)]
        for name in workload.inputs:
            self._layers(name)
        results = [self._result(row(workload, step), contestant) for step in workload.steps]
        if any(result.failed for result in results):
            return
        done = 0
        try:
            with mounted(contestant, lowers, next(self._places)) as mount:
                for step, result in zip(workload.steps, results, strict=True):
                    self._time(step, mount, result)
                    done += 1
            if mount.requests:
                self.requests[workload.title] = mount.requests
        except (MountFailed, StepFailed, OSError, subprocess.SubprocessError) as error:
            # If all steps were done, the unmount is what failed: then none of them counts.
            for result in results[done:] or results:
                result.failed = str(error)

    def _result(self, name: str, contestant: Contestant) -> Result:
        return self.results.setdefault(name, {}).setdefault(contestant.name, Result())

    def _time(self, step: Step, mount: Mount, result: Result) -> None:
        os.sync()
        before = mount.cpu()
        with PeakMemory(mount) as memory:
            started = time.perf_counter()
            output = self._script(step, mount)
            elapsed = time.perf_counter() - started
        after = mount.cpu()
        result.seconds.append(step.seconds(output, elapsed))
        if before is not None and after is not None and memory.peak is not None:
            result.cpu.append(after - before)
            result.memory.append(memory.peak)
        if not step.by_fio:
            result.outputs.append(output.strip())

    def _script(self, step: Step, mount: Mount) -> str:
        with subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", step.script],
            cwd=mount.root,
            env=os.environ | {"LAYERS": str(self._layers.directory), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                raise StepFailed(f"not done after {TIMEOUT} s") from None
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            raise StepFailed(last_line(errors))
        return output

    def _compare_outputs(self) -> None:
        """Let fail who printed something else than the kernel; without it, than most."""
        for results in self.results.values():
            outputs = [output for result in results.values() for output in result.outputs]
            trusted = results.get(KERNEL, Result()).outputs or outputs
            right = next((output for output, _ in Counter(trusted).most_common(1)), "")
            for result in results.values():
                wrong = [output for output in result.outputs if output != right]
                if wrong and not result.failed:
                    result.failed = f"another result than others: {last_line(wrong[0])[:80]}"


def medians(
    results: dict[str, Result], figures: Callable[[Result], list[float]]
) -> dict[str, float]:
    """Return the medians of those who did the work and have such figures."""
    return {
        name: statistics.median(figures(result))
        for name, result in results.items()
        if figures(result) and not result.failed
    }


def report(race: Race, names: Sequence[str]) -> None:
    """Print what was measured, as Markdown tables."""

    def cells(results: dict[str, Result], figures: Callable[[Result], list[float]]) -> list[str]:
        values = medians(results, figures)
        found = []
        for name in names:
            if results[name].failed:
                found.append("failed")
            elif name not in values:
                found.append("-")
            elif name == OURS or not values.get(OURS):
                found.append(_rounded(values[name]))
            else:
                found.append(f"{_rounded(values[name])} ({values[name] / values[OURS]:.2f})")
        return found

    for title, figures in (
        ("seconds (ratio to ours)", lambda result: result.seconds),
        ("processor seconds of the server", lambda result: result.cpu),
        ("highest MiB of the server (PSS)", lambda result: result.memory),
    ):
        rows = ((name, *cells(results, figures)) for name, results in race.results.items())
        table((title, *names), rows)
    if race.requests:
        table(
            ("requests to ours", "all", "by opcode"),
            (
                (title, str(sum(counts.values())), _most_first(counts))
                for title, counts in race.requests.items()
            ),
        )
    failures: dict[str, list[str]] = {}
    for name, results in race.results.items():
        for contestant, result in results.items():
            if result.failed:
                failures.setdefault(f"{contestant}: {result.failed}", []).append(name)
    for failure, rows_failed in failures.items():
        print(f"\nFailed: {failure} ({'; '.join(rows_failed)})")


def _rounded(figure: float) -> str:
    return f"{figure:.3g}" if figure < 1000 else f"{figure:.0f}"


def _most_first(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(counts).most_common())


def ratios(results: Results) -> dict[str, dict[str, float]]:
    """Return the time of each contestant as a multiple of ours, by row."""
    found: dict[str, dict[str, float]] = {}
    for name, contestants in results.items():
        times = medians(contestants, lambda result: result.seconds)
        own = times.pop(OURS, 0)
        if own:
            found[name] = {peer: time / own for peer, time in times.items() if time}
    return found


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    description, _, _ = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="scripts/benchmark overlay", description=description)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="little work: only to see it work")
    kinds = dict.fromkeys(workload.key for workload in workloads(Sizes()))
    parser.add_argument("--only", metavar="WORKLOAD,...", help=f"of {', '.join(kinds)}")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help="one more")
    parser.add_argument("--peers", metavar="NAME,...", help="only these (none: ours alone)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="draw the ratios")
    parser.add_argument("--inside", nargs=2, type=Path, help=argparse.SUPPRESS)
    found = parser.parse_args()
    unknown = set((found.only or "").split(",")) - {*kinds, ""}
    if unknown:
        parser.error(f"there is no workload {', '.join(sorted(unknown))}")
    return found


def outside() -> int:
    """Make what a user namespace cannot, run this program in one, clean up."""
    # So that the directory does not stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    image = images.debian(cache())
    directory = Path(tempfile.mkdtemp(prefix="rl-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    try:
        command = ["unshare", "--map-root-user", "--map-auto", "--mount", sys.executable]
        command += ["-m", "tests.benchmarks.overlay", *sys.argv[1:]]
        command += ["--inside", str(image), str(directory)]
        return subprocess.run(command, check=False).returncode
    finally:
        leaks.remove_tree(directory)


def inside(options: argparse.Namespace) -> None:
    """Measure and print."""
    image, directory = options.inside
    os.umask(0o22)
    sizes = Sizes.quick() if options.quick else Sizes()
    contestants = peers(options.peer)
    if options.peers is not None:
        wanted = options.peers.split(",")
        contestants = [one for one in contestants if one.name.split()[0] in wanted]
    contestants.insert(0, ours())
    chosen = workloads(sizes)
    if options.only:
        chosen = [workload for workload in chosen if workload.key in options.only.split(",")]
    (directory / "layers").mkdir()
    race = Race(contestants, Layers(directory / "layers", image, sizes), directory / "contests")
    race.run(chosen, options.rounds)
    names = [one.name for one in contestants]
    report(race, names)
    if options.json:
        figures = {
            name: {contestant: asdict(result) for contestant, result in results.items()}
            for name, results in race.results.items()
        }
        document = {"sizes": asdict(sizes), "results": figures, "requests": race.requests}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.chart:
        options.chart.write_text(chart.draw(ratios(race.results), names[1:]))


def main() -> None:
    """Go into a user namespace, measure, print."""
    options = arguments()
    if options.inside:
        inside(options)
    else:
        sys.exit(outside())


if __name__ == "__main__":
    main()
