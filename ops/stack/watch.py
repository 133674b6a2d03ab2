"""What `up` says while Pulumi waits: a container that ends, is started again, and ends again will not become healthy.

pulumi-docker waits for a new container's health until its time is up, and looks at nothing else meanwhile.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Final

from ops.setup.console import SetupError
from ops.stack.engine import Container, engine_errors, list_containers
from ops.stack.stack import Stack

_EVERY_SECONDS: Final = 2.0
#: One may be an accident: a database that was not there yet.
_RESTARTS: Final = 2
_LOG_LINES: Final = 12
_LINE_LENGTH: Final = 300


@contextlib.contextmanager
def watching(stack: Stack) -> Iterator[None]:
    """Look at a stack's containers while the block runs, and tell once of each that restarts again and again."""
    done = threading.Event()
    # A container that has been there for a year may have been started again before.
    before = {one.id: one.restarts for one in _look(stack.prefix)}

    def watch() -> None:
        told = set()
        while not done.wait(_EVERY_SECONDS):
            for one in _look(stack.prefix):
                if one.id not in told and one.restarts - before.get(one.id, 0) >= _RESTARTS:
                    told.add(one.id)
                    print(_told(one, stack.name), flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _look(prefix: str) -> list[Container]:
    """The stack's containers; none where the engine does not answer: Pulumi says so itself."""
    with contextlib.suppress(SetupError):
        return list_containers(prefix)
    return []


def _log(container: Container) -> list[str]:
    assert container.handle is not None
    with contextlib.suppress(SetupError), engine_errors():
        text = container.handle.logs(tail=_LOG_LINES).decode(errors="replace")
        return ["".join(filter(str.isprintable, line))[:_LINE_LENGTH] for line in text.splitlines()]
    return []


def _told(container: Container, stack: str) -> str:
    how = f", the last time with exit status {container.exit_status}" if container.state == "restarting" else ""
    return "\n".join(
        [
            # Pulumi's own line may not have ended.
            f"\n{container.part}: the container {container.name} ends and is started again, {container.restarts} times by now{how}. "
            "Its log ends:",
            *(f"    | {line}" for line in _log(container)),
            "    Waiting will not help: press Ctrl-C (again to end at once), and correct what the log says; then",
            f"    `./orthanc-stack up {stack}`. The whole log: docker logs {container.name}\n",
        ]
    )
