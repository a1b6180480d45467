"""`dimint top`: hosts and GPUs in a terminal, live, with keys."""

import shutil

import click

from dimint.errors import SettingsError
from dimint.system_clock import SystemClock
from dimint.top.run import ask, parse_url, run_top
from dimint.top.state import SORTS, VIEWS, State, address
from dimint.when import parse_time
from dimint.zone import local_zone

__all__ = ["top"]


@click.command(name="top", help="Show hosts and GPUs live in the terminal; ? shows the keys. URL is the web app's address.")
@click.argument("url", default="http://127.0.0.1:8080")
@click.option("--every", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--view", type=click.Choice(VIEWS), default="auto", show_default=True)
@click.option("--sort", default=SORTS[0], help="Order, as in -gpu.util.")
@click.option("--filter", "filter_", default="", help="Filter, as in 'gpu.util<5 and held>30m'.")
@click.option("--at", "at", default="", metavar="TIME", help="Begin at a past time, as in -2h; [ ] and { } go on from there.")
@click.option("--once", is_flag=True, help="Print one picture and end; needs no terminal.")
def top(url: str, every: float, view: str, sort: str, filter_: str, at: str, once: bool) -> None:
    """See the help text."""
    at_ns = parse_time(at, now_ns=SystemClock().time_ns(), zone=local_zone()) if at else None
    state = State(view=view, sort=sort, filter=filter_, at_s=None if at_ns is None else at_ns // 1_000_000_000)
    if not once:
        run_top(url, state, every)
        return
    answer = ask(parse_url(url), address(state, shutil.get_terminal_size().columns))
    if answer.problem:
        raise SettingsError(answer.problem)
    for _, text in answer.lines:
        click.echo(text)
