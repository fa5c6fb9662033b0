"""What the shell's completion offers: names of what there is, and values of options.

Read when a key is pressed: what cannot be read is not offered, and never an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from rootless.errors import RlError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.shell_completion import CompletionItem

    from rootless.containers.store import Container

    Completion = Callable[[click.Context, click.Parameter, str], list[str]]


# Values of options

_MODES: Final = ("bridge", "host", "none", "pasta", "private", "slirp4netns")


def words(*offered: str) -> Completion:
    """Return what completes one of a few words."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
        return [word for word in offered if word.startswith(incomplete)]

    return complete


def joinable(*offered: str) -> Completion:
    """Return what completes a word or the name of a container that runs, container:NAME."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        start = "container:"
        if not incomplete.startswith(start):
            return words(*offered, start)(ctx, param, incomplete)
        names = running(ctx, param, incomplete.removeprefix(start))
        return [f"{start}{name}" for name in names]

    return complete


def keys(*offered: str) -> Completion:
    """Return what completes the key of a KEY=VALUE."""
    return words(*(f"{key}=" for key in offered))


def container_filters(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return what containers can be chosen by, as far as it begins so."""
    from rootless.cli.container_view import FILTERS

    return keys(*FILTERS)(ctx, param, incomplete)


def image_filters(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return what images can be chosen by, as far as it begins so."""
    from rootless.cli.image_view import FILTERS

    return keys(*FILTERS)(ctx, param, incomplete)


policies = words("no", "on-failure", "always", "unless-stopped")


def signals(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of signals that begin so, with or without SIG."""
    from signal import Signals

    prefix = "SIG" if incomplete.upper().startswith("SIG") else ""
    names = [prefix + number.name.removeprefix("SIG") for number in Signals]
    return [name for name in names if name.startswith(incomplete.upper())]


def capabilities(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of capabilities that begin so, and ALL."""
    from rootless.kernel.capabilities import NAMES

    names = ["ALL", *(name.removeprefix("CAP_") for name in NAMES)]
    return [name for name in names if name.startswith(incomplete.upper())]


# Names


def images(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of images that begin so."""
    return _offered(ctx, incomplete, _image_names)


def containers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of containers that begin so."""
    return _offered(ctx, incomplete, _names)


def running(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of containers that run and begin so."""
    return _offered(ctx, incomplete, lambda root: _names(root, lambda one: one.active))


def idle(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of containers that do not run and begin so."""
    return _offered(ctx, incomplete, lambda root: _names(root, lambda one: not one.active))


def paused(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of containers that are paused and begin so."""
    return _offered(ctx, incomplete, lambda root: _names(root, lambda one: one.paused))


def copied(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Return ends of a copy that begin so: CONTAINER:PATH; files of the host are the shell's."""
    from click.shell_completion import CompletionItem

    name, colon, path = incomplete.partition(":")
    if incomplete.startswith(("/", ".", "~")):
        return [CompletionItem(incomplete, type="file")]
    if colon:
        ends = _offered(ctx, incomplete, lambda root: _paths(root, name, path))
    else:
        ends = _offered(ctx, incomplete, lambda root: [f"{one}:" for one in _names(root)])
    return [CompletionItem(end) for end in ends] or [CompletionItem(incomplete, type="file")]


def volumes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of volumes that begin so."""
    return _offered(ctx, incomplete, _volume_names)


def networks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of user networks that begin so."""
    return _offered(ctx, incomplete, _network_names)


def modes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return what --network takes that begins so."""
    return joinable(*_MODES)(ctx, param, incomplete) + networks(ctx, param, incomplete)


def sources(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return what may be mounted and begins so: volumes, and files of the host."""
    from click.shell_completion import CompletionItem

    found = [CompletionItem(f"{name}:") for name in volumes(ctx, param, incomplete)]
    return found or [CompletionItem(incomplete, type="file")]


def both(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of containers and images that begin so."""
    return containers(ctx, param, incomplete) + images(ctx, param, incomplete)


def _offered(ctx: click.Context, incomplete: str, names: Callable[[Path], list[str]]) -> list[str]:
    from rootless.paths import state_root

    try:
        # The group's own function, which would fill Settings, does not run in a completion.
        root = state_root(ctx.find_root().params.get("root"))
        return [name for name in names(root) if name.startswith(incomplete)]
    except (RlError, OSError):
        return []


def _image_names(root: Path) -> list[str]:
    from rootless.images.reference import Reference
    from rootless.images.store import ImageStore

    found = [Reference.parse(name) for image in ImageStore(root).images() for name in image.names]
    tagged = [reference for reference in found if reference.tag]
    # `alpine` is enough for alpine:latest.
    short = {reference.familiar_name for reference in tagged if reference.tag == "latest"}
    return sorted(short.union(reference.familiar for reference in tagged))


def _names(root: Path, wanted: Callable[[Container], bool] = lambda _: True) -> list[str]:
    from rootless.containers.store import ContainerStore

    return sorted(container.name for container in ContainerStore(root).list() if wanted(container))


def _paths(root: Path, name: str, path: str) -> list[str]:
    """Return what is in a directory of a container that runs."""
    from rootless.containers import copy
    from rootless.containers.store import ContainerStore

    container = ContainerStore(root).get(name)
    directory = path[: path.rfind("/") + 1]
    found = copy.names(root, container, directory or "/") if container.active else []
    return [f"{name}:{directory}{one}" for one in found]


def _volume_names(root: Path) -> list[str]:
    from rootless.volumes.store import VolumeStore

    return [volume.name for volume in VolumeStore(root).list()]


def _network_names(root: Path) -> list[str]:
    from rootless.networks.definitions import Definitions

    return Definitions(root).names()
