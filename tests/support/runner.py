"""The command under test, run as a user would: with a home, a store and registries of its own.

Owns the environment of the command. RL_TEST_COMMAND puts another command under the same tests.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import leaks

_REMOVALS = {
    "containers": ("rm", "-f", "-v"),
    "volumes": ("volume", "rm"),
    "networks": ("network", "rm"),
}


@dataclass(frozen=True)
class Rl:
    """``rl`` with its state under ``directory``; call it as ``rl("run", "--rm", "alpine")``."""

    directory: Path
    """Has a unique name, see leaks.processes; holds store, home and XDG_RUNTIME_DIR."""
    registry_host: str

    @property
    def root(self) -> Path:
        """Return the store: what RL_ROOT is for the command."""
        return self.directory / "store"

    @property
    def command(self) -> list[str]:
        """Return the words that start the command."""
        return shlex.split(os.environ.get("RL_TEST_COMMAND", "rl"))

    @property
    def environment(self) -> dict[str, str]:
        """Return the whole environment that the command sees."""
        passed = ("PATH", "LANG", "TERM", "USER", "LOGNAME", "http_proxy", "https_proxy")
        return {
            **{name: os.environ[name] for name in passed if name in os.environ},
            "HOME": str(self.directory / "home"),
            "RL_ROOT": str(self.root),
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
            "CONTAINERS_REGISTRIES_CONF": str(self.directory / "registries.conf"),
            "REGISTRY_AUTH_FILE": str(self.directory / "auth.json"),
            "no_proxy": os.environ.get("no_proxy", "") + ",127.0.0.1",
        }

    def prepare(self) -> None:
        """Make the directories, and a registries.conf whose docker.io is the test's registry."""
        for name in "home", "run":
            (self.directory / name).mkdir(mode=0o700, parents=True)
        (self.directory / "auth.json").write_text("{}")
        # The original is a name that never resolves (RFC 6761), so that a test which asks for an
        # image that the mirror does not have cannot reach the world.
        (self.directory / "registries.conf").write_text(
            f"""
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            prefix = "docker.io"
            location = "registry.invalid"
            [[registry.mirror]]
            location = "{self.registry_host}"
            insecure = true
            [[registry]]
            location = "{self.registry_host}"
            insecure = true
            """
        )

    def __call__(
        self,
        *arguments: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002 - named as subprocess.run names it
        timeout: float = 300,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, with an empty stdin unless ``input`` is given.

        With ``check``, a status other than 0 fails the test with what the command said.
        """
        done = subprocess.run(
            [*self.command, *arguments],
            env={**self.environment, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL if input is None else None,
            input=input,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"rl {shlex.join(arguments)} ended with {done.returncode}:\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start the command and return at once; ``options`` are those of Popen."""
        return _Started([*self.command, *arguments], env=self.environment, **options)

    def things(self) -> set[tuple[str, ...]]:
        """Return what there is in the store, each as the command that removes it."""
        removals: set[tuple[str, ...]] = set()
        for directory, command in _REMOVALS.items():
            with suppress(FileNotFoundError):
                names = os.listdir(self.root / directory)
                removals |= {(*command, name.removesuffix(".json")) for name in names}
        return removals

    def remove_all_but(self, known: set[tuple[str, ...]]) -> None:
        """Remove what a test made that has failed."""
        left = self.things() - known
        # What is used goes after what uses it.
        for kind in _REMOVALS.values():
            for command in left:
                if command[:-1] == kind:
                    self(*command, check=False)

    def leftovers(self) -> list[str]:
        """Return what is still there when every container should be gone: one line each."""
        containers = self.root / "containers"
        left = leaks.wait_for_none(self.directory)
        if containers.exists():
            left += [f"container {entry.name} in the store" for entry in containers.iterdir()]
        return left


class _Started(subprocess.Popen[bytes]):
    """A process that a test which fails does not wait for."""

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)
