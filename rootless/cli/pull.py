"""`rl pull`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.option("-q", "--quiet", is_flag=True, help="Do not show progress.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Fetch the image for this platform.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete.images)
@pass_settings
def pull(settings: Settings, quiet: bool, platform: str | None, names: tuple[str, ...]) -> int:
    """Fetch images from a registry.

    NAME is an image as in `docker pull`: alpine, user/image:tag,
    host:5000/image@sha256:… The full names go to stdout.
    """
    from rootless.cli.housekeeping import collect, tidy
    from rootless.cli.report import for_each
    from rootless.images.pull import pull_image
    from rootless.images.reference import Reference

    root = settings.root

    fresh = []

    def pull_one(name: str) -> None:
        fresh.append(pull_image(root, name, platform, quiet))
        click.echo(str(Reference.parse(name)))

    status = for_each(names, pull_one)
    tidy(root)
    collect(root, fresh)
    return status
