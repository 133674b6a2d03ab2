"""The program that Pulumi runs, with malformed stack files: it ends with a message, and has asked Pulumi for nothing."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from tests.program.harness import Run, run_program
from tests.unit.hostile_files import Path, put, valid

#: One of each kind that Pulumi can hand over.
SAMPLE: dict[str, tuple[Path, Any]] = {
    "another shape": (("nodes",), {"archive": {}}),
    "no nodes": (("nodes",), []),
    "text for a number": (("nodes", 1, "httpPort"), "8043"),
    "a port out of range": (("nodes", 1, "dicomPort"), 2**31),
    "a new line in an AE title": (("nodes", 1, "aet"), "CT\nAET: X"),
    "a variable of Orthanc's": (("nodes", 1, "orthanc", "Locale"), "${HOME}"),
    "a variable as an AE title": (("modalities", 0, "aet"), "${HOME}"),
    "a number that no option takes": (("nodes", 1, "orthanc", "StableAge"), -1),
    "nested": (("nodes", 1, "orthanc", "DicomWeb"), json.loads("[" * 40 + "]" * 40)),
    "a shell's text as an image": (("images", "orthanc"), "a;$(reboot):1"),
    "an address with a zone": (("nodes", 1, "bind"), "fe80::1%eth0"),
    "a host out of this world": (("modalities", 0, "host"), "../../etc/passwd"),
    "an unknown key": (("nodes", 1, "__class__"), "x"),
    "a loop": (("nodes", 0, "forwardTo"), ["ct"]),
    "localhost": (("nodes", 0, "name"), "localhost"),
}


@pytest.mark.parametrize("name", SAMPLE)
def test_nothing_is_registered(name: str) -> None:
    where, value = SAMPLE[name]
    run = Run()
    with pytest.raises(pulumi.RunError, match=r"Pulumi\.x\.yaml: \d+ problem.*Nothing was touched"):
        run_program(put(valid(), where, value), "x", run=run)
    assert run.resources == {}
    assert run.outputs == {}


def test_what_they_are_made_from_registers_its_resources() -> None:
    run = Run()
    assert run_program(valid(), "x", run=run) is run
    assert [r.name for r in run.of_type("OrthancNode")] == ["archive", "ct"]
