"""A device that goes on sending while the stack changes, and the stack as the project's own commands see it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from ops.setup.prepare import Tools
from ops.setup.state import State
from ops.stack import stack as operated
from tests.stack.dicom import store
from tests.stack.harness import Node, Stack


@dataclass
class Sender:
    """A device that sends an image after the other, and each until it is taken.

    Attributes:
        node: the node as it is now, and how the device speaks with it.
        images: what it has.
        aet: its AE title.
        taken: the SOP instance UIDs of those that were acknowledged.
        longest: the most seconds between two acknowledgements.
    """

    node: Callable[[], Node]
    images: list[FileDataset]
    aet: str
    taken: list[str] = field(default_factory=list)
    longest: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """The work of its thread."""
        last = time.monotonic()
        for image in self.images:
            while not self.stopping.is_set():
                if sent := store(self.node(), self.aet, [image]):
                    now = time.monotonic()
                    self.longest, last = max(self.longest, now - last), now
                    self.taken += sent
                    break
                time.sleep(0.1)
            self.stopping.wait(0.2)


@contextmanager
def sending(sender: Sender) -> Iterator[None]:
    """The device sends while the block runs, and two seconds longer."""
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        yield
        time.sleep(2)
    finally:
        sender.stopping.set()
        thread.join(timeout=90)


@contextmanager
def operated_on(stack: Stack) -> Iterator[operated.Stack]:
    """A stack as ops/ works on it, in whose environment the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.environment.items():
            patch.setenv(name, value)
        tools = Tools(Path(str(shutil.which("pulumi"))), State(stack.environment["PULUMI_BACKEND_URL"], ""))
        yield operated.Stack(stack.name, tools, stack.program)
