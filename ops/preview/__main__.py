"""A report from a preview that was made elsewhere: `python -m ops.preview <file> [<file for the JSON>]`, Markdown on standard output.

The file is what `pulumi preview --json --show-sames` printed, or an event log. REPORT_URL is where its reader finds the whole report.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ops.preview import build, read
from ops.preview.markdown import markdown
from ops.preview.model import as_json


def main(arguments: list[str]) -> int:
    """Write the report; the exit status."""
    if not 1 <= len(arguments) <= 2:
        print((__doc__ or "").splitlines()[0], file=sys.stderr)
        return 2
    try:
        report = build(read(Path(arguments[0]).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    sys.stdout.write(markdown(report, url=os.environ.get("REPORT_URL", ""))[0])
    if len(arguments) == 2:
        Path(arguments[1]).write_text(json.dumps(as_json(report), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
