"""`rl completion`."""

from __future__ import annotations

import click

_HOW = """\
Print a shell's completion script, for its start-up file:

\b
    eval "$(rl completion bash)"            in ~/.bashrc
    eval "$(rl completion zsh)"             in ~/.zshrc
    rl completion fish | source             in ~/.config/fish/config.fish
"""


@click.command(help=_HOW, short_help="Print a shell's completion script")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what click makes for the whole command line."""
    from click.shell_completion import get_completion_class

    from rootless.cli import bash

    bash.register()
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "rl", "_RL_COMPLETE").source())
