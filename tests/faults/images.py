"""Images by the thousand: one file made by pydicom, in whose bytes each image's identifiers, number and pixels are put.

Every image of a run can be made again from its numbers, so that nobody has to keep it: a ledger keeps its MD5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from random import SystemRandom

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from tests.stack.dicom import dataset_bytes

CT, MR = str(CTImageStorage), str(MRImageStorage)
SYNTAX = str(ExplicitVRLittleEndian)
SMALL, LARGE = 64, 512
#: A run's own number, so that a stack that is used twice is never sent an identifier of another run.
_RUN = f"{SystemRandom().randrange(10**8, 10**9)}"
_ROOT = f"2.25.{_RUN}"
#: What the template holds and what is put in its place is of one length, so that no length in the file changes.
_STUDY, _SERIES, _INSTANCE = f"{_ROOT}.1.900000000", f"{_ROOT}.2.900000000", f"{_ROOT}.3.900000000000"
_PATIENT, _PIXELS = "FAULTS-900000000", b"\x11\x07PIXELS\x07\x11IN\x07PLACE\x11\x07OF"[:24]


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        uid: its SOP instance UID.
        sop_class: its SOP class UID.
        orthanc: its identifier in every Orthanc.
        dataset: its DICOM data set, less the file's header: what a C-STORE carries.
    """

    uid: str
    sop_class: str
    orthanc: str
    dataset: bytes = field(repr=False)

    @property
    def md5(self) -> str:
        """Of the data set."""
        return hashlib.md5(self.dataset).hexdigest()


@dataclass(frozen=True)
class Series:
    """A series of a study, which is that of a patient, all of one number.

    Attributes:
        number: below a hundred million.
        count: how many images it has, below a thousand.
        size: rows and columns.
    """

    number: int
    count: int
    size: int = SMALL

    @property
    def uid(self) -> str:
        """Its series instance UID."""
        return f"{_ROOT}.2.1{self.number:08d}"

    @property
    def study_uid(self) -> str:
        """Its study instance UID."""
        return f"{_ROOT}.1.1{self.number:08d}"

    def image(self, number: int, *, version: int = 0, sop_class: str = CT) -> Image:
        """One of its images.

        Args:
            number: from 0.
            version: of its pixels: another one is the same image with another content.
            sop_class: CT, or MR for one that has lost its way.
        """
        template = _template(self.size, sop_class)
        uid, patient = f"{_ROOT}.3.1{self.number:08d}{number:03d}", f"FAULTS-1{self.number:08d}"
        pixels = hashlib.sha256(f"{uid} {version}".encode()).digest()[: len(_PIXELS)]
        dataset = template.filled(study=self.study_uid, series=self.uid, instance=uid, patient=patient, pixels=pixels)
        return Image(uid, sop_class, orthanc_id(patient, self.study_uid, self.uid, uid), dataset)

    def images(self, *, version: int = 0) -> Iterator[Image]:
        """All of them, made one by one."""
        return (self.image(number, version=version) for number in range(self.count))


def orthanc_id(patient: str, study: str, series: str, instance: str) -> str:
    """An instance's identifier in every Orthanc: SHA-1 of its four identifiers, in five groups."""
    digest = hashlib.sha1(f"{patient}|{study}|{series}|{instance}".encode()).hexdigest()
    return "-".join(digest[i : i + 8] for i in range(0, 40, 8))


class _Template:
    """A data set with the places in it where something is put."""

    def __init__(self, dataset: bytes) -> None:
        self._dataset = dataset
        texts = {"study": _STUDY.encode(), "series": _SERIES.encode(), "instance": _INSTANCE.encode(), "patient": _PATIENT.encode()}
        self._places = {name: _only_place(dataset, text) for name, text in (texts | {"pixels": _PIXELS}).items()}

    def filled(self, *, pixels: bytes, **texts: str) -> bytes:
        """A copy with other identifiers and pixels."""
        made = bytearray(self._dataset)
        for name, value in ({name: text.encode() for name, text in texts.items()} | {"pixels": pixels}).items():
            place = self._places[name]
            made[place : place + len(value)] = value
        return bytes(made)


def _only_place(dataset: bytes, text: bytes) -> int:
    assert dataset.count(text) == 1, f"the template holds {text!r} {dataset.count(text)} times"
    return dataset.index(text)


@cache
def _template(size: int, sop_class: str) -> _Template:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(_INSTANCE)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID, image.StudyInstanceUID, image.SeriesInstanceUID = sop_class, _INSTANCE, _STUDY, _SERIES
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Faults^Phantom", _PATIENT, "19700101", "O"
    image.StudyDate, image.StudyTime, image.StudyID, image.AccessionNumber = "20260101", "120000", "1", "F1"
    image.Modality, image.Manufacturer, image.StudyDescription = "CT", "orthanc-stack faults", "Faults"
    image.SeriesNumber, image.InstanceNumber, image.Rows, image.Columns = 1, 1, size, size
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 1
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    noise = np.random.default_rng(seed=size).normal(0, 12, (size, size)).astype("<i2").tobytes()
    image.PixelData = _PIXELS + noise[len(_PIXELS) :]
    written = BytesIO()
    pydicom.dcmwrite(written, image, enforce_file_format=True)
    return _Template(dataset_bytes(written.getvalue()))
