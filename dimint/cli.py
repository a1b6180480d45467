"""The command line: where programs are composed. Commands are imported when they are called.

Every command is one row of COMMANDS. Errors that a user can do something about are one line on stderr each, without a
traceback: exit code 2 for what was asked wrongly, 1 for what went wrong.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from dimint import __version__
from dimint.errors import DimintError, SettingsError
from dimint.process_state import set_process_name
from dimint.visible import visible

__all__ = ["COMMANDS", "main", "node_main", "overlord_main", "produce_main"]

COMMANDS: Final = {
    # name: (module, object in it, help); the object is a click command, or a map of them by name
    "overlord": ("dimint.cli_role", "overlord", "Serve the key-value protocol to clients."),
    "node": ("dimint.cli_role", "node", "Keep and serve the keys."),
    "consumer": ("dimint.cli_role", "consumer", "Keep the status tables of the hosts."),
    "web": ("dimint.cli_role", "web", "Serve the status pages."),
    "alerts": ("dimint.cli_role", "alerts", "Watch the hosts by rules, and tell people."),
    "agent": ("dimint.cli_role", "agent", "Publish this host's CPU and GPU."),
    "top": ("dimint.cli_top", "top", "Show hosts and GPUs live in the terminal."),
    "up": ("dimint.cli_up", "up", "Run all of it on this machine."),
    "get": ("dimint.cli_kv", "COMMANDS", "Read a key."),
    "set": ("dimint.cli_kv", "COMMANDS", "Write a key."),
    "delete": ("dimint.cli_kv", "COMMANDS", "Delete a key."),
    "incr": ("dimint.cli_kv", "COMMANDS", "Add to a number."),
    "cas": ("dimint.cli_kv", "COMMANDS", "Replace a value if it is the expected one."),
    "scan": ("dimint.cli_kv", "COMMANDS", "List keys with a prefix."),
    "watch": ("dimint.cli_watch", "watch", "Follow the changes of keys."),
    "mget": ("dimint.cli_kv", "COMMANDS", "Read several keys."),
    "mset": ("dimint.cli_kv", "COMMANDS", "Write several keys."),
    "state": ("dimint.cli_kv", "COMMANDS", "State of the nodes."),
    "overlord_state": ("dimint.cli_kv", "COMMANDS", "State of the overlords."),
    "status": ("dimint.cli_status", "status", "Log, overlords, nodes and partitions."),
    "history": ("dimint.cli_history", "COMMANDS", "Every change of a key."),
    "diff": ("dimint.cli_history", "COMMANDS", "Keys that differ between two times."),
    "restore": ("dimint.cli_history", "COMMANDS", "Bring keys back to what they were."),
    "key": ("dimint.cli_key", "key", "Make the key that encrypts a system."),
    "registry": ("dimint.cli_registry", "registry", "Who is registered; clear what is stale."),
    "accounting": ("dimint.cli_accounting", "accounting", "GPU-hours per user and host."),
    "host": ("dimint.cli_host", "host", "List, rename, merge or forget hosts."),
    "events": ("dimint.cli_events", "events", "Look at the events of a log."),
    "deadletters": ("dimint.cli_deadletters", "deadletters", "Records that no reader took in, and what they should have been."),
    "export": ("dimint.cli_archive", "COMMANDS", "Write a stretch of a log into a file."),
    "import": ("dimint.cli_archive", "COMMANDS", "Copy such a file into another log."),
    "replay": ("dimint.cli_replay", "replay_command", "Copy a stretch of a log into another log, at any pace."),
    "verify": ("dimint.cli_verify", "verify", "Check the log, and what was made of it."),
    "rebuild": ("dimint.cli_rebuild", "rebuild", "Rebuild stores or tables from the log."),
    "snapshot": ("dimint.cli_snapshot", "snapshot", "Write the node stores into files, or check such files."),
    "trim": ("dimint.cli_trim", "trim_command", "Let go of the beginning of a topic, if nobody needs it."),
    "reader": ("dimint.cli_reader", "reader", "Programs that read the log, for which it is kept."),
    "completion": ("dimint.cli_completion", "completion", "Print the completion script of a shell."),
}

HELP: Final = """
    dimint help
    dimint overlord help
    dimint overlord list
    dimint overlord start
    dimint overlord stop
    dimint node help
    dimint node list
    dimint node start
    dimint node stop
"""
"""What the original printed, so that whoever looks for its lines finds them."""


class Root(click.Group):
    """The commands of COMMANDS, with - and _ alike in their names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = cmd_name.replace("-", "_")
        if name not in COMMANDS:
            return super().get_command(ctx, name)
        module, attribute, _ = COMMANDS[name]
        found = getattr(importlib.import_module(module), attribute)
        command = found[name] if isinstance(found, dict) else found
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[2]) for name, row in COMMANDS.items()])


def _help_text(ctx: click.Context) -> str:
    return f"{HELP}\n{ctx.find_root().get_help()}"


@click.group(cls=Root, invoke_without_command=True, context_settings={"help_option_names": ["--help", "-h"]})
@click.version_option(__version__, prog_name="dimint")
@click.pass_context
def root(ctx: click.Context) -> None:
    """DiMint: an event-sourced key-value store and GPU/CPU host monitor."""
    if ctx.invoked_subcommand is None:
        click.echo(_help_text(ctx))


@click.command(name="help", hidden=True)
@click.pass_context
def help_command(ctx: click.Context) -> None:
    """Show the help."""
    click.echo(_help_text(ctx))


root.add_command(help_command)


# --- entry points ---------------------------------------------------------------------------------------------------
def main(arguments: Sequence[str] | None = None) -> int:
    """`dimint`."""
    return _run(root, "dimint", sys.argv[1:] if arguments is None else arguments)


def overlord_main() -> int:
    """`dimint_overlord [list]`: the overlord in the foreground."""
    return _foreground("overlord", "dimint_overlord")


def node_main() -> int:
    """`dimint_node [list]`: a node in the foreground."""
    return _foreground("node", "dimint_node")


def produce_main() -> int:
    """`dimint-produce [--once | --install-service | doctor]`: the agent in the foreground, or what is done about it."""
    for flag, command in (("--once", "once"), ("--install-service", "install-service"), ("--install_service", "install-service")):
        if flag in sys.argv[1:]:
            return _run(root, "dimint-produce", ["agent", command, *(word for word in sys.argv[1:] if word != flag)])
    return _foreground("agent", "dimint-produce")


def _foreground(role: str, program: str) -> int:
    arguments = sys.argv[1:]
    command = "run" if not arguments or arguments[0].startswith("-") else arguments[0]
    rest = arguments if command == "run" and arguments[:1] != ["run"] else arguments[1:]
    if arguments[:1] == ["--version"]:
        return main(arguments)
    return _run(root, program, [role, command, *rest])


def _run(command: click.Command, program: str, arguments: Sequence[str]) -> int:
    set_process_name()
    _open_standard_streams()
    try:
        status = command.main(list(arguments), prog_name=program, standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _say("", 130)
    except click.ClickException as error:
        return _say(f"dimint: {' '.join(error.format_message().split())}", 2)
    except SettingsError as error:
        return _say("\n".join(f"dimint: {line}" for line in str(error).splitlines()), 2)
    except DimintError as error:
        return _say(f"dimint: {' '.join(str(error).splitlines())}", 1)
    except BrokenPipeError:
        _drop_output()  # whoever read it went away: nothing more can be said to him
        return 1
    except OSError as error:
        _drop_output()  # it may be what could not be written
        where = "" if error.filename is None else f"{error.filename}: "
        return _say(f"dimint: {where}{error.strerror or error}", 1)


def _open_standard_streams() -> None:
    """Make stdin, stdout and stderr usable, whoever closed them: else the next files opened would get their numbers."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names and arguments need not be UTF-8


def _drop_output() -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str, status: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(visible(text, keep="\n"), file=sys.stderr, flush=True)
    return status
