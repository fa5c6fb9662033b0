"""`rl run`: an image becomes a running container.

Owns the options and their checks against each other; what they mean is
decided in rootless.containers. On the path where every import is waited for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings
from rootless.containers import request as requests
from rootless.errors import ImageNotFound, RlError

if TYPE_CHECKING:
    from rootless.images.store import Image


@click.command(
    cls=FlagCommand,
    # All after the image is the container's command, options included.
    context_settings={"allow_interspersed_args": False},
)
@click.option("-d", "--detach", is_flag=True, help="Leave it running, and print its ID.")
@click.option("--detach-keys", metavar="KEYS", help="The keys to leave it: ctrl-p,ctrl-q.")
@click.option("--cidfile", metavar="FILE", help="Write the container's ID to FILE.")
@click.option("--stop-signal", metavar="SIGNAL", help="The signal that stops it.")
@click.option(
    "--stop-timeout",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="How long to wait before it is killed.",
)
@click.option(
    "--restart",
    default="no",
    show_default=True,
    metavar="POLICY",
    help="When it is started again: on-failure[:N], always, unless-stopped.",
)
@click.option(
    "--log-driver",
    type=click.Choice(["json-file", "none"]),
    default="json-file",
    show_default=True,
    help="Whether what it prints is kept for rl logs.",
)
@click.option("-i", "--interactive", is_flag=True, help="Connect our standard input.")
@click.option("-t", "--tty", is_flag=True, help="Give the container a terminal.")
@click.option("--rm", "auto_remove", is_flag=True, help="Remove the container when it ends.")
@click.option("--name", metavar="NAME", help="Name the container.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable.")
@click.option(
    "--env-file",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Set the variables in FILE.",
)
@click.option("-w", "--workdir", metavar="DIR", help="Start in DIR of the container.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Run as this user of the image.")
@click.option(
    "-v",
    "--volume",
    multiple=True,
    metavar="[SOURCE:]TARGET[:OPTIONS]",
    help="Mount a host directory, a file or a named volume.",
)
@click.option("--mount", multiple=True, metavar="KEY=VALUE,…", help="Mount: bind, volume, tmpfs.")
@click.option("--tmpfs", multiple=True, metavar="TARGET[:OPTIONS]", help="Mount a tmpfs.")
@click.option("--entrypoint", metavar="PROGRAM", help="Replace the image's entrypoint.")
@click.option("-h", "--hostname", metavar="NAME", help="The container's hostname.")
@click.option("--read-only", is_flag=True, help="Mount the container's root read-only.")
@click.option(
    "--network",
    "--net",
    type=click.Choice(["host", "none"]),
    default="host",
    show_default=True,
    help="Share the host's network, or have none.",
)
@click.option("-l", "--label", multiple=True, metavar="NAME[=VALUE]", help="Label the container.")
@click.option("--init", is_flag=True, help="Run a small init as PID 1 that reaps processes.")
@click.option("--security-opt", multiple=True, metavar="OPTION", help="no-new-privileges")
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
def run(
    settings: Settings,
    /,
    *,
    detach: bool,
    detach_keys: str | None,
    cidfile: str | None,
    pull: str,
    platform: str | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Run a command in a new container of an image."""
    from rootless.containers import attach

    wanted = make_request(**options)
    keys = attach.parse_keys(attach.DEFAULT_KEYS if detach_keys is None else detach_keys)
    if wanted.terminal and wanted.interactive and not detach and not os.isatty(0):
        raise RlError("the input device is not a terminal (leave out -t)")
    if cidfile is not None:
        check_cidfile(cidfile)
    image = find_or_pull(settings.root, wanted.image, pull, platform, quiet)
    from rootless.cli.start import follow
    from rootless.containers.launch import Launch

    launch = Launch()
    try:
        # Imported while the supervisor loads.
        from rootless.containers.create import create
        from rootless.containers.store import Process

        container = create(settings.root, wanted, image, Process.of(launch.child.pid))
        if cidfile is not None:
            write_cidfile(cidfile, container.id)
        if detach:
            click.echo(container.id)
            follow(settings.root, container, launch, None)
            return 0
        onlooking = attach.Onlooking(
            stdin=wanted.interactive, output=True, terminal=wanted.terminal, keys=keys
        )
        code = follow(settings.root, container, launch, onlooking)
    except BaseException:
        launch.end()
        raise
    finally:
        from rootless.containers.remove import remove_leftovers

        remove_leftovers(settings.root)
    return code


def make_request(
    *,
    stop_signal: str | None,
    stop_timeout: int | None,
    restart: str,
    log_driver: Literal["json-file", "none"],
    interactive: bool,
    tty: bool,
    auto_remove: bool,
    name: str | None,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    workdir: str | None,
    user: str | None,
    volume: tuple[str, ...],
    mount: tuple[str, ...],
    tmpfs: tuple[str, ...],
    entrypoint: str | None,
    hostname: str | None,
    read_only: bool,
    network: str,
    label: tuple[str, ...],
    init: bool,
    security_opt: tuple[str, ...],
    image: str,
    command: tuple[str, ...],
) -> requests.Request:
    """Return what the options ask for; RlError where they contradict each other."""
    from rootless.containers.restart import Policy
    from rootless.containers.stop import parse_signal

    if stop_signal is not None:
        parse_signal(stop_signal)
    if Policy.parse(restart).name != "no" and auto_remove:
        raise RlError("--restart and --rm contradict each other")
    files = [line for path in env_file for line in requests.parse_env_file(path)]
    return requests.Request(
        image=image,
        command=command,
        name=name,
        entrypoint=entrypoint,
        env=requests.parse_env([*files, *env], os.environ),
        workdir=workdir,
        user=user,
        mounts=(
            *map(requests.parse_volume, volume),
            *map(requests.parse_mount, mount),
            *map(requests.parse_tmpfs, tmpfs),
        ),
        hostname=hostname,
        network="none" if network == "none" else "host",
        labels=dict(item.partition("=")[::2] for item in label),
        terminal=tty,
        interactive=interactive,
        read_only=read_only,
        auto_remove=auto_remove,
        init=init,
        no_new_privileges=_no_new_privileges(security_opt),
        stop_signal=stop_signal,
        stop_timeout=stop_timeout,
        restart=restart,
        log_driver=log_driver,
    )


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


def find_or_pull(root: Path, name: str, pull: str, platform: str | None, quiet: bool) -> Image:
    """Return the image of a container to be made, fetched if it has to be."""
    image = _find_or_pull(root, name, pull, platform, quiet)
    _warn_of_platform(image)
    return image


def _find_or_pull(root: Path, name: str, pull: str, platform: str | None, quiet: bool) -> Image:
    from rootless.images.manifest import Platform
    from rootless.images.store import ImageStore

    images = ImageStore(root)
    wanted = Platform.parse(platform) if platform else None
    if pull != "always":
        try:
            image = images.find(name)
            if wanted in (None, image.config.platform):
                return image
            missing = f"the image {name} here is for {image.config.platform}, not {wanted}"
        except ImageNotFound as error:
            missing = str(error)
        if pull == "never":
            raise ImageNotFound(missing)
    from rootless.images.pull import pull_image

    return images.find(pull_image(root, name, platform=platform, quiet=quiet))


def _warn_of_platform(image: Image) -> None:
    from rootless.images.manifest import Platform

    host = Platform.host()
    if image.config.platform not in host.runs():
        click.echo(
            f"rl: warning: the image is for {image.config.platform}, this machine is {host}",
            err=True,
        )


def _no_new_privileges(options: tuple[str, ...]) -> bool:
    chosen = False
    for option in options:
        match option.replace("=", ":").split(":"):
            case ["no-new-privileges"] | ["no-new-privileges", "true"]:
                chosen = True
            case ["no-new-privileges", "false"]:
                chosen = False
            case _:
                raise RlError(f"unknown security option {option!r} (no-new-privileges is known)")
    return chosen
