"""Real devices: DCMTK's storage server (`storescp`) and its archive (`dcmqrscp`), from Debian's package dcmtk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.devices.device import Device
from tests.stack.engine import eventually


@dataclass
class Program(Device):
    """A program that is a device; what it was sent is counted from its log.

    Attributes:
        stored: what its log says of each transfer, with the place of the SOP instance UID, or of what stands for it.
    """

    stored: re.Pattern[str] = re.compile("")
    _folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp()))

    def start(self, port: int) -> None:
        self._port = port
        with (self._folder / "log").open("a") as log:
            self._server = subprocess.Popen(self.command(port), cwd=self._folder, stdout=log, stderr=subprocess.STDOUT)
        eventually(f"{self.name} listens", lambda: self._server.poll() is None and _listens(port), 10)

    def stop(self) -> None:
        if self._server:
            self._server.kill()
            self._server.wait()
            shutil.rmtree(self._folder)
        self._server = None

    def command(self, port: int) -> list[str]:
        """Its command line."""
        raise NotImplementedError

    def counts(self) -> Counter[str]:
        """How often it was sent each image."""
        return Counter(self.stored.findall((self._folder / "log").read_text(errors="replace")))


@dataclass
class StoreScp(Program):
    """`storescp`: takes images, one association at a time, and nothing else."""

    stored: re.Pattern[str] = re.compile(r"storing DICOM file: \./\w+\.([\d.]+)")

    def command(self, port: int) -> list[str]:
        return [_found("storescp"), "--verbose", "--aetitle", self.aet, "--output-directory", ".", str(port)]


@dataclass
class QrScp(Program):
    """`dcmqrscp`: an archive with C-FIND and without storage commitment."""

    stored: re.Pattern[str] = re.compile(r"use SOPInstanceUID \[([\d.]+)\] from Dataset")

    def command(self, port: int) -> list[str]:
        (self._folder / "images").mkdir(exist_ok=True)
        (self._folder / "config").write_text(
            f"MaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{self.aet} {self._folder / 'images'} RW (200, 1024mb) ANY\nAETable END\n"
        )
        return [_found("dcmqrscp"), "--debug", "--config", "config", str(port)]


def _found(command: str) -> str:
    """DCMTK's command: pynetdicom brings others of the same names beside its Python."""
    folders = [one for one in os.get_exec_path() if Path(one) != Path(sys.executable).parent]
    if found := shutil.which(command, path=os.pathsep.join(folders)):
        return found
    pytest.fail(f"there is no {command}: apt-get install dcmtk, or run the tests by `make test-slow`, which installs it as root")


def _listens(port: int) -> bool:
    """Whether a process of this machine listens at a port: without a connection, which would be an association to `storescp`."""
    return any(f":{port:04X} " in line and " 0A " in line for line in Path("/proc/net/tcp").read_text().splitlines())
