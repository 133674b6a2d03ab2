"""What several runs share in the cache folder: made by one of them at a time, and whole or not at all."""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.setup.console import cache_dir, say


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Let one run at a time make something; the others wait, and then find it made. The lock goes with its process."""
    with (cache_dir() / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting", f"another run is at work ({name})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def moved_into(target: Path) -> Iterator[Path]:
    """A folder to work in, that becomes `target` when all is done. A run that is interrupted leaves no target."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-", ignore_cleanup_errors=True) as work:
        new = Path(work) / "new"
        new.mkdir()
        yield new
        if not target.exists():
            new.rename(target)
