"""The command line `rl`: which commands there are, and how their failures reach a person.

Owns the table of commands, the global options and the exit codes. Imports
nothing but click, so that every command starts fast. The behaviour lives in
rootless.images and rootless.containers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from typing import Any, Final

import click

from rootless import __version__
from rootless.cli.lazy import Entry, LazyGroup, Section
from rootless.cli.settings import Settings, pass_settings
from rootless.errors import RlError

# Docker's: our own failure, as opposed to the exit status of a container.
_FAILED: Final = RlError.exit_code
_INTERRUPTED: Final = 130
# What a program shows that wrote into a closed pipe: 128 + SIGPIPE.
_BROKEN_PIPE: Final = 141

_RUN: Final = Entry("rootless.cli.run:run", "Run a command in a new container of an image")
_CREATE: Final = Entry(
    "rootless.cli.create:create", "Make a container of an image, to be started later"
)
_START: Final = Entry("rootless.cli.start:start", "Start containers that do not run")
_PS: Final = Entry("rootless.cli.ps:ps", "List containers")
_RM: Final = Entry("rootless.cli.rm:rm", "Remove containers")
_STOP: Final = Entry("rootless.cli.stop:stop", "Stop containers")
_KILL: Final = Entry("rootless.cli.kill:kill", "Send a signal to containers")
_RESTART: Final = Entry("rootless.cli.restart:restart", "Stop containers and start them again")
_PAUSE: Final = Entry("rootless.cli.pause:pause", "Freeze all processes of containers")
_UNPAUSE: Final = Entry("rootless.cli.pause:unpause", "Let paused containers go on")
_UPDATE: Final = Entry(
    "rootless.cli.update:update", "Change the limits of containers, and when they are started again"
)
_STATS: Final = Entry("rootless.cli.stats:stats", "Show what running containers use")
_WAIT: Final = Entry(
    "rootless.cli.wait:wait", "Wait for containers to end, and print their exit codes"
)
_LOGS: Final = Entry("rootless.cli.logs:logs", "Show what a container printed")
_ATTACH: Final = Entry("rootless.cli.attach:attach", "Look on at a running container")
_EXEC: Final = Entry("rootless.cli.execute:execute", "Run a command in a running container")
_EVENTS: Final = Entry(
    "rootless.cli.events:events", "Show what happens to containers, images, volumes and networks"
)
_CP: Final = Entry("rootless.cli.cp:cp", "Copy files into a container or out of it")
_DIFF: Final = Entry("rootless.cli.diff:diff", "Show what a container has changed of its image")
_EXPORT: Final = Entry(
    "rootless.cli.export:export", "Write a container's file system to a tar file"
)
_TOP: Final = Entry("rootless.cli.top:top", "Show the processes of a running container")
_PORT: Final = Entry("rootless.cli.port:port", "Show which ports of the host lead to a container")
_RENAME: Final = Entry("rootless.cli.rename:rename", "Give a container another name")
_PULL: Final = Entry("rootless.cli.pull:pull", "Fetch images from a registry")
_IMAGES: Final = Entry("rootless.cli.images:images", "List images")
_RMI: Final = Entry("rootless.cli.rmi:rmi", "Remove images")
_INFO: Final = Entry("rootless.cli.info:info", "Tell what this machine offers, and what it lacks")

_ON_CONTAINERS: Final = {
    "run": _RUN,
    "create": _CREATE,
    "start": _START,
    "ps": _PS,
    "stop": _STOP,
    "kill": _KILL,
    "restart": _RESTART,
    "pause": _PAUSE,
    "unpause": _UNPAUSE,
    "update": _UPDATE,
    "wait": _WAIT,
    "logs": _LOGS,
    "exec": _EXEC,
    "attach": _ATTACH,
    "cp": _CP,
    "diff": _DIFF,
    "export": _EXPORT,
    "top": _TOP,
    "port": _PORT,
    "stats": _STATS,
    "rename": _RENAME,
    "rm": _RM,
}
_COMMANDS: Final = {
    **_ON_CONTAINERS,
    "pull": _PULL,
    "images": _IMAGES,
    "rmi": _RMI,
    "inspect": Entry(
        "rootless.cli.inspect:inspect",
        "Show all about containers, images, volumes and networks",
    ),
    "events": _EVENTS,
    "info": _INFO,
    "version": Entry("rootless.cli.version:version", "Show the versions of rl and its parts"),
    "help": Entry("rootless.cli.help:show", "Explain rl, or one of its commands"),
    "completion": Entry("rootless.cli.completion:completion", "Print a shell's completion script"),
}
# Docker's management commands, which scripts use.
_SECTIONS: Final = {
    "container": Section(
        "Work with containers",
        {
            **{"ls" if name == "ps" else name: it for name, it in _ON_CONTAINERS.items()},
            "prune": Entry("rootless.cli.prune:prune", "Remove all containers that do not run"),
            "exists": Entry("rootless.cli.exists:exists", "Tell whether there is a container"),
            "inspect": Entry("rootless.cli.inspect:inspect_container", "Show all about containers"),
        },
    ),
    "healthcheck": Section(
        "Check the health of containers",
        {"run": Entry("rootless.cli.healthcheck:run", "Check the health of a container now")},
    ),
    "image": Section(
        "Work with images",
        {
            "pull": _PULL,
            "ls": _IMAGES,
            "rm": _RMI,
            "inspect": Entry("rootless.cli.inspect:inspect_image", "Show all about images"),
            "prune": Entry(
                "rootless.cli.prune:images", "Remove images without a tag that no container has"
            ),
        },
    ),
    "network": Section(
        "Work with networks",
        {
            "create": Entry(
                "rootless.cli.network:create",
                "Make a network, on which containers find each other by name",
            ),
            "ls": Entry("rootless.cli.network:list_networks", "List networks"),
            "inspect": Entry("rootless.cli.inspect:inspect_network", "Show all about networks"),
            "rm": Entry("rootless.cli.network:rm", "Remove networks"),
            "prune": Entry(
                "rootless.cli.network:prune",
                "Remove the networks that no container has, running or not",
            ),
            "exists": Entry("rootless.cli.network:exists", "Tell whether there is a network"),
            "connect": Entry("rootless.cli.network:connect", "Connect a container to a network"),
            "disconnect": Entry(
                "rootless.cli.network:disconnect", "Disconnect a container from a network"
            ),
        },
    ),
    "system": Section(
        "Work with this installation",
        {
            "df": Entry("rootless.cli.df:df", "Show how much disk all takes"),
            "events": _EVENTS,
            "info": _INFO,
            "prune": Entry("rootless.cli.prune:system", "Remove what is not used"),
        },
    ),
    "volume": Section(
        "Work with volumes",
        {
            "create": Entry("rootless.cli.volume:create", "Make a volume"),
            "ls": Entry("rootless.cli.volume:list_volumes", "List volumes"),
            "inspect": Entry("rootless.cli.inspect:inspect_volume", "Show all about volumes"),
            "rm": Entry("rootless.cli.volume:rm", "Remove volumes, with what they hold"),
            "prune": Entry("rootless.cli.volume:prune", "Remove the volumes that no container has"),
        },
    ),
}


@click.command(
    "rl",
    cls=LazyGroup,
    entries=_COMMANDS,
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--root", metavar="DIR", help="Keep images and containers in DIR (or set RL_ROOT).")
@click.option("--debug", is_flag=True, help="Log what is done, and show where an error came from.")
@click.version_option(__version__, "-v", "--version", message="rl version %(version)s")
@pass_settings
def group(settings: Settings, root: str | None, debug: bool) -> None:
    """Run containers without root."""
    settings.chosen_root = root
    settings.debug = debug
    if debug:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)d %(name)s: %(message)s")


def execute(
    arguments: Sequence[str], hand_over: Callable[[Mapping[str, Any]], None] | None = None
) -> int:
    """Run one command and return its exit status; what went wrong is on stderr by then.

    Where there is ``hand_over``, `exec` calls it with what it has read and does nothing.
    """
    settings = Settings(hand_over)
    if isinstance(sys.stdout, TextIOWrapper):
        # Names and labels may hold bytes that are no text; in JSON this is their right escape.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if instruction := os.environ.get("_RL_COMPLETE"):
            from click.shell_completion import shell_complete

            from rootless.cli import bash

            bash.register()
            return shell_complete(group, {"obj": settings}, "rl", "_RL_COMPLETE", instruction)
        # Not click's own main: it ends silently on any broken pipe, our own ones included.
        with group.make_context("rl", list(arguments), obj=settings) as context:
            status = group.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
        # A command returns its exit status, or None.
        return status if isinstance(status, int) else 0
    except BaseException as error:
        return failed(error, settings.debug)


def failed(error: BaseException, debug: bool) -> int:
    """Say what went wrong, and return the exit status."""
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case KeyboardInterrupt() | click.Abort():
            return _INTERRUPTED
        case BrokenPipeError():
            _forget_output()
            if debug:
                _explain(error, "broken pipe", debug)
            return _BROKEN_PIPE
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return _FAILED
        case click.UsageError():
            _explain(error, _usage(error), debug)
            return _FAILED
        case RlError():
            _explain(error, str(error), debug)
            return error.exit_code
        case OSError():
            message = f"{_place(error)}{error.strerror or error}"
            _explain(error, message, debug, hint=True)
            _forget_output()
            return _FAILED
        case Exception():
            message = f"internal error: {type(error).__name__}: {error}"
            _explain(error, message, debug, hint=True)
            return _FAILED
    raise error


def _explain(error: Exception, message: str, debug: bool, hint: bool = False) -> None:
    from rootless.cli.report import complain

    if debug:
        import traceback

        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    elif hint:
        message += " (run `rl --debug …` for details)"
    complain(message)


def _usage(error: click.UsageError) -> str:
    """Return what is wrong with the use of a command, and where its use is explained."""
    path = error.ctx.command_path if error.ctx else "rl"
    if isinstance(error, click.NoSuchOption) and path.split()[-1] in ("run", "create"):
        from rootless.cli.missing import run_option

        if option := run_option(error.option_name):
            return f"'{path}' does not know {option} yet"
    said = " ".join(error.format_message().split()).rstrip(".")
    return f"{said} (see '{path} --help')"


def _place(error: OSError) -> str:
    """Return the file that an error is about, as a prefix of the message."""
    if error.filename:
        return f"{os.fsdecode(error.filename)}: "
    try:
        # What could not be written is still there, and cannot be written now.
        sys.stdout.flush()
    except OSError:
        return "stdout: "
    return ""


def _forget_output() -> None:
    """Let the interpreter's own last flush find a place for what could not be written."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
