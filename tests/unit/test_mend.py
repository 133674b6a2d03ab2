"""Mending: which files take the place of others, which do not, and why; what is read of a DICOM file."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

from ops.backup import mend
from ops.backup.check import Fault
from ops.backup.dicom import identifier, look, with_header
from ops.backup.mend import LEFT, MENDED, REMOVED, TAKEN_IN
from ops.stack.probes import Node

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
#: Little and big endian, implicit, deflated, encapsulated, with sequences, without pixels.
WHOLE = (
    *("CT_small", "MR_small_bigendian", "MR_small_implicit", "image_dfl", "693_J2KI", "SC_rgb_rle_2frame", "rtplan", "test-SR"),
    *("reportsi", "waveform_ecg", "SC_rgb_jpeg_dcmtk", "examples_palette", "liver_1frame"),
)
ID = "ffffffff-0000-0000-0000-000000000000"


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.dcm").read_bytes()


@pytest.mark.parametrize("name", WHOLE)
def test_orthancs_identifiers(name: str) -> None:
    read = pydicom.dcmread(SAMPLES / f"{name}.dcm")
    uids = (str(read.get(key, "")) for key in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"))
    assert look(sample(name)).instance == identifier(*uids)
    assert look(sample(name)).patient == identifier(str(read.get("PatientID", "")))


def test_an_identifier_as_orthanc_has_it() -> None:
    # Of the PatientID "PHANTOM-1": as a node said.
    assert identifier("PHANTOM-1") == "-".join(hashlib.sha1(b"PHANTOM-1").hexdigest()[i : i + 8] for i in range(0, 40, 8))


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_is_cut_off_is_not_whole(name: str) -> None:
    for length in (len(sample(name)) - 20, len(sample(name)) // 2, 200, 140):
        with pytest.raises(ValueError, match=r"whole|lacks|without pixels"):
            look(sample(name)[:length])


def test_what_is_not_dicom_or_has_no_pixels() -> None:
    with pytest.raises(ValueError, match="is not DICOM"):
        look(b"anything" * 100)
    image = sample("CT_small")
    with pytest.raises(ValueError, match="without pixels"):
        look(image[: image.index(b"\xe0\x7f\x10\x00OW")])


def test_another_meta_header() -> None:
    mine, other = sample("CT_small"), sample("MR_small")
    changed = with_header(mine, other)
    assert with_header(changed, mine) == mine
    assert look(changed) == look(mine)
    read = pydicom.dcmread(SAMPLES / "MR_small.dcm").file_meta
    assert changed != mine
    assert str(read.ImplementationVersionName).encode() in changed
    with pytest.raises(ValueError, match="meta header"):
        with_header(mine, other[:140] + b"\0\0\0\0")


@dataclass
class Orthanc:
    """A node: the files of its images, and what its index says of them."""

    name: str
    images: dict[str, bytes] = field(default_factory=dict)  #: as they are on the disk; empty for a file that is missing
    md5: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    overwrites: bool = True
    login: tuple[str, str] = ("admin", "pw")
    stored: list[bytes] = field(default_factory=list)

    def add(self, file: bytes, broken: bytes | None = None) -> str:
        image = look(file).instance
        self.images[image], self.md5[image] = file if broken is None else broken, mend._md5(file)
        return image

    def ask(self, path: str, _: Any, body: bytes | None = None) -> httpx.Response:
        if path == "/instances" and body is not None:
            self.stored.append(body)
            image = look(body).instance
            status = "Success" if self.overwrites or image not in self.images else "AlreadyStored"
            if status == "Success":
                self.add(body)
            return httpx.Response(200, json={"ID": image, "Status": status})
        _, level, image, *rest = path.split("/")
        if level == "patients" and not rest:
            return httpx.Response(200 if any(look(file).patient == image for file in self.images.values() if file) else 404)
        if level != "instances" or rest == ["labels"]:
            return httpx.Response(200, json=self.labels if rest == ["labels"] else ["dicom"])
        if image not in self.images:
            return httpx.Response(404)
        file = self.images[image]
        whole = mend._md5(file) == self.md5[image]
        answers: dict[str, Any] = {
            "attachments/dicom/info": {"Uuid": f"uuid-{len(self.stored)}", "UncompressedMD5": self.md5[image]},
            "attachments": ["dicom"],
            "series": {"ID": "series", "Instances": list(self.images)},
            "study": {"ID": "study", "Series": ["series"]},
            "patient": {"ID": "patient", "Studies": ["study"]},
        }
        if "/".join(rest) == "file":
            return httpx.Response(200 if file else 500, content=file)
        if rest[-1] == "verify-md5":
            return httpx.Response(200 if whole else 500)
        return httpx.Response(200, content=json.dumps(answers["/".join(rest)]))


IMAGE = sample("CT_small")
DAMAGED = IMAGE[:1000] + b"x" + IMAGE[1001:]


def mended(node: Orthanc, *others: Orthanc, file: str = "uuid-0") -> tuple[str, str]:
    return mend._mend(node, others, Fault(file, "damaged", "MD5", instance=look(IMAGE).instance))  # type: ignore[arg-type]


def test_an_image_comes_from_the_first_node_that_has_what_was_stored() -> None:
    node, empty, broken, good = (Orthanc(name) for name in ("client", "empty", "broken", "good"))
    node.add(IMAGE, broken=DAMAGED)
    broken.add(IMAGE, broken=DAMAGED)
    good.add(IMAGE)
    assert mended(node, empty, broken, good) == (MENDED, "from good")
    assert node.stored == [IMAGE]
    assert mended(node, empty, good) == (MENDED, "another file has taken its place")


@pytest.mark.parametrize("broken", [DAMAGED, b""])
def test_the_meta_header_is_its_own_again_or_that_of_its_series(broken: bytes) -> None:
    node, other = Orthanc("client"), Orthanc("archive")
    node.add(IMAGE, broken=broken)
    read = pydicom.dcmread(SAMPLES / "CT_small.dcm")
    uid = str(read.SOPInstanceUID)
    node.add(IMAGE.replace(uid.encode(), uid[:-1].encode() + b"9"))
    other.add(with_header(IMAGE, sample("MR_small")))
    assert mended(node, other) == (MENDED, "from archive")
    assert node.stored == [IMAGE]


def test_what_is_left() -> None:
    image = look(IMAGE).instance
    other_content = IMAGE.replace(b"CompressedSamples^CT1", b"CompressedSamples^CT2")
    assert look(other_content).instance == image
    assert other_content != IMAGE

    def left(node: Orthanc, *others: Orthanc, file: str = "uuid-0") -> str:
        outcome, why = mended(node, *others, file=file)
        assert outcome == LEFT
        return why

    def broken(**settings: Any) -> Orthanc:
        node = Orthanc("client", **settings)
        node.add(IMAGE, broken=DAMAGED)
        return node

    def having(file: bytes, broken: bytes | None = None) -> Orthanc:
        node = Orthanc("archive")
        node.add(file, broken=broken)
        return node

    node = broken()
    assert "no other node" in left(node, Orthanc("archive"))
    assert "damaged, too" in left(node, having(IMAGE, broken=DAMAGED))
    assert "another file of it" in left(node, having(other_content))
    assert "labels" in left(broken(labels=["mine"]), having(IMAGE))
    unknown, silent = broken(), having(IMAGE)
    unknown.md5[image] = silent.md5[image] = hashlib.md5(b"").hexdigest()
    assert "knows its MD5" in left(unknown, silent)
    # The file of another image, by whatever fault of that node.
    strange = having(IMAGE)
    strange.images[image] = sample("MR_small")
    strange.md5[image] = mend._md5(sample("MR_small"))
    unknown.md5[image] = ""
    assert "another file" in left(unknown, strange)
    assert "attached" in left(Orthanc("client"), having(IMAGE))
    assert [one.stored for one in (node, unknown)] == [[], []]
    assert "OverwriteInstances" in left(broken(overwrites=False), having(IMAGE))


class Held:
    """A node's volume with one orphaned file."""

    def __init__(self, file: bytes) -> None:
        self.file, self.ran = file, list[str]()

    def run(self, *command: str, read_only: bool = True) -> bytes:
        assert read_only is (command[0] == "cat")
        assert command[1] == f"/data/ff/ff/{ID}"
        self.ran.append(command[0])
        return self.file


def test_orphaned_files() -> None:
    def taken(node: Orthanc, file: bytes, forgotten: tuple[str, ...] = (), name: str = ID) -> tuple[str, bool]:
        held = Held(file)
        outcome, _ = mend._take_in(node, held, Fault(name, "orphaned", ""), forgotten)  # type: ignore[arg-type]
        assert (held.ran[-1:] == ["rm"]) is (outcome != LEFT)
        return outcome, bool(node.stored)

    def having(broken: bytes | None = None, **settings: Any) -> Orthanc:
        node = Orthanc("client", **settings)
        node.add(IMAGE, broken=broken)
        return node

    assert taken(Orthanc("client"), IMAGE) == (TAKEN_IN, True)
    assert taken(having(), IMAGE) == (REMOVED, False)
    assert taken(having(b""), IMAGE) == (TAKEN_IN, True), "the image whose own file is missing"
    assert taken(having(b"", labels=["mine"]), IMAGE) == (LEFT, False)
    assert taken(having(b"", overwrites=False), IMAGE) == (LEFT, True)
    assert taken(having(), DAMAGED) == (LEFT, False), "the node has another version"
    assert taken(Orthanc("client"), IMAGE[:-2]) == (LEFT, False)
    assert taken(Orthanc("client"), IMAGE, (look(IMAGE).patient,)) == (REMOVED, False)
    assert taken(having(), IMAGE, (look(IMAGE).patient,)) == (LEFT, False), "the patient came again"
    assert taken(Orthanc("client"), IMAGE, name="../../etc/passwd") == (LEFT, False)


def test_what_is_left_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    fault = Fault(ID, "missing", "", patient="P1")
    mend.report([mend.Outcome("a", fault, MENDED, "from b"), mend.Outcome("a", fault, LEFT, "why not")])
    told = capsys.readouterr().out
    assert told.index("why not") < told.index("from b")
    assert "1 mended, 0 taken in, 0 removed, 1 left" in told


def test_a_node_has_what_is_asked_of_it() -> None:
    assert {"ask", "login", "name", "forward_to"} <= {*dir(Node), *Node.__annotations__}
