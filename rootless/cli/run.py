"""`rl run`: an image becomes a running container.

Its options are in rootless.cli.options; what they mean is decided in
rootless.containers. On the path where every import is waited for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.options import (
    health,
    isolation,
    life,
    limits,
    looking,
    namespaces,
    network,
    process,
    storage,
)
from rootless.cli.settings import Settings, pass_settings
from rootless.containers import request as requests
from rootless.errors import ImageNotFound, RlError

if TYPE_CHECKING:
    from rootless.containers.launch import Launch
    from rootless.images.store import Image

_STREAMS: Final = ("stdin", "stdout", "stderr")


@click.command(
    cls=FlagCommand,
    # All after the image is the container's command, options included.
    context_settings={"allow_interspersed_args": False},
)
@click.option("-d", "--detach", is_flag=True, help="Leave it running, and print its ID.")
@click.option(
    "-a",
    "--attach",
    multiple=True,
    metavar="STREAM",
    help="Connect stdin, stdout, stderr, and not the others.",
)
@looking.options
@process.options
@click.option(
    "--entrypoint",
    metavar="PROGRAM",
    help="Replace the image's entrypoint; a JSON list is one with arguments.",
)
@life.options
@storage.options
@network.options
@namespaces.options
@isolation.options
@health.options
@limits.options
@click.option(
    "--pull",
    type=click.Choice(["always", "missing", "never"]),
    default="missing",
    show_default=True,
    help="When to fetch the image.",
)
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Which of the image's platforms.")
@click.option("-q", "--quiet", is_flag=True, help="No progress of a pull.")
@click.argument("image", shell_complete=complete.images)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_settings
def run(settings: Settings, /, **values: Any) -> int:
    """Run a command in a new container of an image."""
    from rootless.containers import attach

    wanted = make_request(values)
    cidfile, keys = values["cidfile"], looking.keys(values)
    streams = _attached(values)
    process.check_terminal(values)
    if cidfile is not None:
        check_cidfile(cidfile)
    from rootless.cli.start import follow
    from rootless.containers.launch import Launch

    root, launch = settings.root, Launch.next()
    try:
        container_id = _make(root, wanted, launch, values)
        if cidfile is not None:
            write_cidfile(cidfile, container_id)
        if values["detach"]:
            click.echo(container_id)
            return follow(root, container_id, launch, None)
        onlooking = attach.Onlooking(
            stdin=wanted.interactive and "stdin" in streams,
            outputs=streams,
            terminal=wanted.terminal,
            keys=keys,
        )
        if not onlooking.shows:
            click.echo(container_id)
        code = follow(root, container_id, launch, onlooking, proxy=values["sig_proxy"])
        return code if onlooking.shows else 0
    except BaseException:
        launch.end()
        raise


def _attached(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the streams to connect; RlError for one that there is not."""
    chosen = [name.lower() for name in values["attach"]]
    for name in chosen:
        if name not in _STREAMS:
            raise RlError(f"invalid stream {name!r} to attach to: stdin, stdout or stderr")
    if chosen and values["detach"]:
        raise RlError("conflicting options: -a and -d")
    return frozenset(chosen or _STREAMS)


def _make(root: Path, wanted: requests.Request, launch: Launch, values: Mapping[str, Any]) -> str:
    """Have the container made, of an image that is fetched if it has to be; return its ID."""
    if values["pull"] == "always" or values["platform"] or values["replace"]:
        find_or_pull(root, values)
    if values["replace"]:
        remove_named(root, wanted.name)
    try:
        made = launch.create(root, wanted)
    except ImageNotFound:
        find_or_pull(root, values)
        made = launch.create(root, wanted)
    container_id, warnings = made
    warn(warnings)
    return container_id


def make_request(values: Mapping[str, Any]) -> requests.Request:
    """Return what the options ask for; RlError where they contradict each other."""
    return requests.Request(
        image=values["image"],
        command=values["command"],
        entrypoint=values["entrypoint"],
        **process.chosen(values),
        **life.chosen(values),
        **storage.chosen(values),
        **network.chosen(values),
        **namespaces.chosen(values),
        **isolation.chosen(values),
        **health.chosen(values),
        **limits.chosen(values),
    )


def warn(warnings: Iterable[str]) -> None:
    """Print what a person ought to know of a container that was made all the same."""
    for warning in warnings:
        click.echo(f"rl: warning: {warning}", err=True)


def check_cidfile(path: str) -> None:
    """Raise RlError if the file for the ID is there already, before anything is made."""
    if os.path.exists(path):
        raise RlError(f"container ID file found, delete it first or choose another: {path}")


def write_cidfile(path: str, container_id: str) -> None:
    """Write the ID of a new container into a file of its own."""
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(container_id)
    except OSError as error:
        raise RlError(f"cannot write the container ID file {path}: {error.strerror}") from None


def remove_named(root: Path, name: str | None) -> None:
    """Remove the container of exactly that name, if there is one, running or not."""
    from rootless.containers.remove import remove
    from rootless.containers.store import ContainerStore

    for container in ContainerStore(root).list():
        if container.name == name:
            remove(root, container, force=True)


def _unpacked(root: Path, name: str, image: Image, *, quiet: bool) -> Image:
    """Return an image of the store; its layers are unpacked if another program put it there."""
    from rootless.errors import LayersMissing
    from rootless.images.store import ImageStore

    try:
        return ImageStore(root).find_whole(name)
    except LayersMissing:
        from rootless.images.layers import unpack_image

        unpack_image(root, name, image, quiet=quiet)
        return image


def find_or_pull(root: Path, values: Mapping[str, Any]) -> Image:
    """Return the image of a container to be made, fetched if it has to be."""
    from rootless.images.platform import Platform
    from rootless.images.store import ImageStore

    images = ImageStore(root)
    name, pull, platform = values["image"], values["pull"], values["platform"]
    wanted = Platform.parse(platform) if platform else None
    if pull != "always":
        try:
            image = images.find(name)
            if wanted in (None, image.config.platform):
                return _unpacked(root, name, image, quiet=values["quiet"])
            missing = f"the image {name} here is for {image.config.platform}, not {wanted}"
        except ImageNotFound as error:
            missing = str(error)
        if pull == "never":
            raise ImageNotFound(missing)
    from rootless.images.pull import pull_image
    from rootless.kernel import userns

    if values["userns"] != "single":
        # Said before anything is fetched that could not be run.
        userns.user_maps()
    image = images.find(pull_image(root, name, platform=platform, quiet=values["quiet"]))
    from rootless.cli.housekeeping import collect

    collect(root, [image.id])
    return image
