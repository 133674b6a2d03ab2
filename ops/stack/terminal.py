"""What is printed on the terminal as a table, and what is asked there."""

import io
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from configs.problems import visible
from ops.setup.console import SetupError

#: The exit status of a command that did its work, and what it found is not well; 1 is for commands that failed.
NOT_WELL: Final = 3
#: Elsewhere than on a terminal, nothing is folded: a program may read it.
_WIDE: Final = 100_000
_MARGIN: Final = "  "


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[str] = (), out: TextIO | None = None) -> None:
    """Print a table, whose cells are text and no markup; on a terminal each row in its colour, where `colours` are given."""
    out = out or sys.stdout
    made = Table(*headers, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, row in enumerate(rows):
        # A file's name, or what a node says, may hold anything.
        made.add_row(*(Text(visible(cell), overflow="fold") for cell in row), style=colours[i] if colours else None)
    console = Console(file=out, highlight=False, width=None if out.isatty() else _WIDE)
    with console.capture() as captured:
        console.print(made, width=console.width - len(_MARGIN))
    out.writelines(f"{_MARGIN}{line.rstrip()}\n" for line in captured.get().splitlines() if line.strip())


def drawn(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text."""
    out = io.StringIO()
    table(headers, rows, out=out)
    return out.getvalue().rstrip("\n")


def confirm(name: str, what: str, command: str) -> None:
    """Ask for the stack's name before something that cannot be taken back.

    Raises:
        SetupError: it is not said, or nobody is there to say it.
    """
    print(f"\n  {what}", flush=True)
    if not (sys.stdin and sys.stdin.isatty()):  # `<&-` leaves none
        raise SetupError(f"nothing was touched: nobody is there to ask. In a pipeline: ./orthanc-stack {command} {name} --yes")
    print("  Its name, to go on: ", end="", flush=True)
    if sys.stdin.readline().strip() != name:
        raise SetupError("nothing was touched: that is not the stack's name.")
