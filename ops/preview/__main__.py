"""The report of a preview that was made elsewhere: `python -m ops.preview <event log>`, as Markdown on standard output."""

import sys
from pathlib import Path

from ops.preview.events import read
from ops.preview.page import markdown
from ops.preview.report import build


def main(arguments: list[str]) -> int:
    """Write the report; the exit status."""
    if len(arguments) != 1:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    try:
        report = build(read(Path(arguments[0]).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    sys.stdout.write(markdown(report, limit=None)[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
