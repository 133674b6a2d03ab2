"""Orthanc itself and configs/orthanc/options.yaml agree: what the stack file refuses, it ends at, and what is taken, it starts with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from configs.orthanc import check_options
from configs.promises import check_promises
from dev.reference import ROOT
from images import local_image
from ops.setup.images import ensure_local_images
from tests.unit.stacks import node, settings_of, stack

pytestmark = pytest.mark.slow("starts Orthanc a hundred times, once for each value at the edge of what an option takes")

#: Refused although Orthanc starts: it recycles at any other word, and takes any version for the newest.
SOFTER = {"MaximumStorageMode", "SslMinimumProtocolVersion", "DicomTlsMinimumProtocolVersion"}
#: The most threads are ours: how many are too many is the machine's, and takes minutes to try.
MOST_THREADS = "1000"
#: Not to be tried by a single value.
DEEPER: list[dict[str, Any]] = [
    {},
    {"OverwriteInstances": "IfChanged", "StoreMD5ForAttachments": False},
    {"CheckRevisions": True, "StoreMD5ForAttachments": False},
    {"PatientLevelEnabled": False, "MaximumPatientCount": 1},
    {"PatientLevelEnabled": False},
    {"Warnings": {"W009": True}},
    {"Warnings": {"W003_DecoderFailure": False}},
    {"UserMetadata": {"a": 1023}},
    {"UserMetadata": {"a": 1024}},
    {"UserMetadata": {"a": 65535}},
    {"UserMetadata": {"a": 65536}},
    {"ExtraMainDicomTags": {"Picture": ["PatientName"]}},
    {"ExtraMainDicomTags": {"Instance": ["PatientName"]}},
    {"ExtraMainDicomTags": {"Instance": "PatientName"}},
    {"JobsEngineThreadsCount": {"ResourceModification": "1"}},
    {"JobsEngineThreadsCount": {"ResourceModification": 0}},
    {"OrthancPeers": {"a b": ["http://peer/"]}},
    {"OrthancPeers": {"a": ["ftp://peer/"]}},
    {"OrthancPeers": {"a": ["http://peer/", "user"]}},
    {"OrthancPeers": {"a": {}}},
    {"OrthancPeers": {"a": {"Url": "http://peer/"}}},
    {"AcceptedTransferSyntaxes": [1]},
    {"AcceptedTransferSyntaxes": ["1.2.840.10008.1.2*"]},
    {"AcceptedSopClasses": [{}]},
]

#: Runs in a container: starts an Orthanc for each set of options, and says of each whether it came up, and its last error.
STARTS = """
import concurrent.futures, json, subprocess, sys, tempfile
def start(number, options):
    folder = tempfile.mkdtemp()
    own = {"StorageDirectory": folder, "DicomPort": 10000 + 2 * number, "HttpPort": 10001 + 2 * number, "RemoteAccessAllowed": False}
    with open(folder + "/orthanc.json", "w") as file:
        json.dump({**own, **options}, file)
    errors = []
    with subprocess.Popen(["Orthanc", file.name], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as orthanc:
        for line in orthanc.stderr:
            errors += [line] if line.startswith("E") else []
            if "Orthanc has started" in line:
                orthanc.kill()
                return True, ""
    return False, "".join(errors[-1:])
every = json.load(sys.stdin)
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    print(json.dumps(list(pool.map(start, range(len(every)), every))))
"""


def values(wanted: str) -> Iterator[Any]:
    """The values at the edges of what a line of options.yaml allows, and beyond them."""
    kind, _, rest = wanted.partition(", ")
    if kind == "integer" and rest:
        low, _, high = rest.partition(" to ")
        yield from (value for value in (int(low) - 1, int(low)) if value >= 0)
        yield from (int(high), int(high) + 1) if high != MOST_THREADS and len(high) < 10 else ()
    elif rest:
        words = rest.removeprefix("one of ").split()
        yield from sorted({words[0], words[-1], f"{words[0]}x", words[0].swapcase(), ""})


def cases() -> list[dict[str, Any]]:
    """What is tried: each option with a range or words of its own, by one value each, and what is deeper."""
    known: Mapping[str, Any] = yaml.safe_load((ROOT / "configs" / "orthanc" / "options.yaml").read_text())
    return [*DEEPER, *({name: value} for name, wanted in known.items() if isinstance(wanted, str) for value in values(wanted))]


def refused(options: dict[str, Any]) -> bool:
    """Whether a stack file with these options is."""
    if any(check_options(options, "orthanc")):
        return True
    settings = settings_of(stack(node("a", index="sqlite")))
    one = settings.nodes[0].model_copy(update={"orthanc": options})
    return any(check_promises(one, settings, "orthanc"))


@pytest.fixture(scope="module")
def starts() -> list[tuple[dict[str, Any], bool, str]]:
    """Each case, whether Orthanc started with it, and what it said if not."""
    ensure_local_images(["orthanc"])
    every = cases()
    command = ["docker", "run", "--rm", "-i", "--network=none", "--entrypoint=python3", local_image("orthanc"), "-c", STARTS]
    run = subprocess.run(command, input=json.dumps(every), capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return [(case, started, error) for case, (started, error) in zip(every, json.loads(run.stdout), strict=True)]


def test_what_is_refused_does_not_start(starts: list[tuple[dict[str, Any], bool, str]]) -> None:
    assert [case for case, started, _ in starts if started and refused(case) and not SOFTER & case.keys()] == []


def test_what_is_taken_starts(starts: list[tuple[dict[str, Any], bool, str]]) -> None:
    assert sum(started for _, started, _ in starts) > 40
    assert [(case, error) for case, started, error in starts if not started and not refused(case)] == []
