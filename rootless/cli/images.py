"""`rl images`."""

from __future__ import annotations

import click

from rootless.cli import complete
from rootless.cli.flags import FlagCommand
from rootless.cli.settings import Settings, pass_settings


@click.command(cls=FlagCommand)
@click.option("-a", "--all", is_flag=True, expose_value=False, help="Accepted: all are shown.")
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@click.option("--digests", is_flag=True, help="Show the digests that registries know them by.")
@click.option("--no-trunc", is_flag=True, help="Do not shorten.")
@click.option("--format", "template", metavar="FORMAT", help='"json", "table …" or a Go template.')
@click.option(
    "-f",
    "--filter",
    "conditions",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete.image_filters,
    help="Show some: reference=PATTERN, dangling=BOOL, label=NAME[=VALUE].",
)
@click.argument("name", required=False, shell_complete=complete.images)
@pass_settings
def images(
    settings: Settings,
    quiet: bool,
    digests: bool,
    no_trunc: bool,
    template: str | None,
    conditions: tuple[str, ...],
    name: str | None,
) -> None:
    """List images.

    NAME is a repository, with or without a tag; it may have * and ? in it.
    """
    from rootless.cli import filters, image_view
    from rootless.cli.output import render
    from rootless.images import usage
    from rootless.images.store import ImageStore

    wanted = filters.parse(conditions, image_view.FILTERS)
    patterns = wanted.get("reference", []) + ([name] if name else [])
    store = ImageStore(settings.root)
    found = [
        usage.unpacked(store, image)
        for image in store.images()
        if image_view.selected(image, wanted)
    ]
    # The newest first; those that do not say when they were made come last.
    found.sort(key=lambda image: image.created, reverse=True)
    # As Docker: a template that shows digests has a row for each.
    named = digests or ".Digest" in (template or "")
    rows = [
        row
        for image in found
        for row in image_view.rows(image, patterns=patterns, digests=named, truncate=not no_trunc)
    ]
    if quiet and not template:
        template = "{{.ID}}"
    columns = image_view.DIGEST_COLUMNS if digests else image_view.COLUMNS
    click.echo(render(rows, image_view.TITLES, columns, template), nl=False)
