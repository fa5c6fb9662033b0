"""The name of an image as a person types it: registry, repository, tag, digest.

Owns Docker's grammar of references (github.com/distribution/reference) and
its short names. Never reads or fetches anything; on the start-up path of
every command that names an image, so it imports next to nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rootless.errors import RlError

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
# Podman's registry of images that came from none.
LOCAL_REGISTRY = "localhost"
# The limit of distribution/reference on a repository's name without its registry.
MAX_REPOSITORY = 255

_HOST = r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"


class Reference(NamedTuple):
    """An image's full name; ``str()`` gives the one form that is stored and compared."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``[host[:port]/]path[:tag][@sha256:hex]`` as Docker does; RlError says what is odd.

        Short names are of docker.io/library, and the tag is ``latest`` where
        neither tag nor digest is given.
        """
        name, at, digest = text.partition("@")
        registry, path = _split_registry(name)
        repository, colon, tag = path.partition(":")
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"library/{repository}"
        problem = _problem(registry, repository)
        if problem is None and len(text) == 64 and re.fullmatch("[0-9a-f]{64}", text):
            problem = "it has the form of an image ID"
        if problem is None and colon and not re.fullmatch(r"(?a:\w[\w.-]{0,127})", tag):
            problem = "a tag is 1 to 128 letters, digits, '_', '.' or '-', not '.' or '-' first"
        if problem is None and at and not is_digest(digest):
            problem = "a digest is sha256: and 64 lower-case hexadecimal digits"
        if problem is not None:
            raise RlError(f"{text[:300]!r} is not the name of an image: {problem}")
        if not colon and not at:
            tag = DEFAULT_TAG
        return cls(registry, repository, tag or None, digest or None)

    @property
    def name(self) -> str:
        """Registry and repository: ``docker.io/library/alpine``."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The shortest text that means ``name``, as Docker prints it: ``alpine``."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        short = self.repository.removeprefix("library/")
        if "/" not in short:
            return short
        # A first part that looks like a host would be read as one.
        return self.name if _is_host(self.repository.partition("/")[0]) else self.repository

    @property
    def familiar(self) -> str:
        """The shortest text that means this reference: ``alpine:latest``."""
        return self.familiar_name + self._suffix

    def __str__(self) -> str:
        return self.name + self._suffix

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag


def is_short(text: str) -> bool:
    """Tell whether a name of an image leaves out its registry."""
    first, slash, _ = text.partition("/")
    return not (slash and _is_host(first))


def is_digest(text: str) -> bool:
    """Tell whether ``text`` is a digest that this program can verify: sha256 in lower case."""
    return re.fullmatch("sha256:[0-9a-f]{64}", text) is not None


def _is_host(first: str) -> bool:
    """Docker's rule for the part before the first slash."""
    return first == LOCAL_REGISTRY or "." in first or ":" in first


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not _is_host(first):
        return DEFAULT_REGISTRY, name
    if first in ("index.docker.io", "registry-1.docker.io"):
        return DEFAULT_REGISTRY, rest
    return first, rest


def _problem(registry: str, repository: str) -> str | None:
    # To compile an expression takes a hundred times as long as to match it.
    if registry != DEFAULT_REGISTRY:
        host = re.fullmatch(rf"(?ai:{_HOST})(?::([0-9]{{1,5}}))?", registry)
        if host is None or int(host[1] or 0) > 65535:
            return f"{registry!r} is not a host, or a host and a port"
    if not repository.removeprefix("library/"):
        return "it is empty" if registry == DEFAULT_REGISTRY else "the registry is all there is"
    if len(repository) > MAX_REPOSITORY:
        return f"a repository has at most {MAX_REPOSITORY} characters"
    if repository != repository.lower():
        return (
            f"repositories are in lower case (try {repository.lower().removeprefix('library/')!r})"
        )
    if not re.fullmatch(f"{_COMPONENT}(?:/{_COMPONENT})*", repository):
        return (
            "a repository is lower-case letters and digits, with single '.', '_', '__' or dashes "
            "between them, in parts divided by '/'"
        )
    return None
