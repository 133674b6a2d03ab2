"""What is printed on the terminal as a table, and what is asked there."""

import io
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.setup.console import SetupError

#: The exit status of a command that did its work, and what it found is not well; 1 is for commands that failed.
NOT_WELL: Final = 3
#: Elsewhere than on a terminal, nothing is folded: a program may read it.
_WIDE: Final = 400


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[str] = ()) -> None:
    """Print a table, whose cells are text and no markup.

    Args:
        headers: the columns' titles.
        rows: the cells.
        colours: the colour of each row on a terminal; none where it is left out.
    """
    _draw(headers, rows, colours, sys.stdout)


def drawn(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text."""
    out = io.StringIO()
    _draw(headers, rows, (), out)
    return out.getvalue().rstrip("\n")


def _draw(headers: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[str], out: TextIO) -> None:
    made = Table(*headers, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, row in enumerate(rows):
        made.add_row(*(Text(cell, overflow="fold") for cell in row), style=colours[i] if colours else None)
    console = Console(file=out, highlight=False, width=None if out.isatty() else _WIDE)
    with console.capture() as captured:
        console.print(made)
    out.writelines(f"  {line.rstrip()}\n" for line in captured.get().splitlines() if line.strip())


def confirm(name: str, what: str, command: str) -> None:
    """Ask for the stack's name before something that cannot be taken back.

    Raises:
        SetupError: it is not said, or nobody is there to say it.
    """
    print(f"\n  {what}", flush=True)
    if not sys.stdin.isatty():
        raise SetupError(f"nothing was touched: nobody is there to ask. In a pipeline: ./orthanc-stack {command} {name} --yes")
    if input("  Its name, to go on: ").strip() != name:
        raise SetupError("nothing was touched: that is not the stack's name.")
