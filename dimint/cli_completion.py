"""`dimint completion bash|zsh|fish`: the script that completes commands and flags in a shell."""

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command(name="completion", help='Print a completion script: eval "$(dimint completion bash)".')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """See the help text."""
    cls = get_completion_class(shell)
    assert cls is not None
    click.echo(cls(ctx.find_root().command, {}, "dimint", "_DIMINT_COMPLETE").source())
