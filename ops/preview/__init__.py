"""What a change will do, for somebody who reviews it: from what Pulumi's preview tells to a page in the words of the stack file.

Pure, but for reading and writing files: a recorded preview is all that its tests need. Pulumi is not imported.

- reading.py reads a preview (steps.py): the engine's events, or the document of `pulumi preview --json`.
- sides.py makes of it the stack before and after; model.py is what a report says; build.py puts it together from its chapters
  (data.py, downtime.py, changes.py, reasons.py, links.py, secret_files.py).
- markdown.py and mermaid.py write it for people, escape.py keeps what a stack file holds from breaking that, fit.py keeps it below what
  a comment may have.
"""

from ops.preview.build import build
from ops.preview.model import Report
from ops.preview.reading import read
from ops.preview.steps import Preview

__all__ = ["Preview", "Report", "build", "read"]
