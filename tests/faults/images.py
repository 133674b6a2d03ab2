"""Images by the thousand. Each can be made again from its numbers, so that nobody has to keep it: a ledger keeps its MD5."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from bench import phantom
from tests.stack.dicom import dataset_bytes

CT, MR = str(CTImageStorage), str(MRImageStorage)
SYNTAX = str(ExplicitVRLittleEndian)
SMALL, LARGE = phantom.Phantom(phantom.SMALL), phantom.Phantom(phantom.CT)


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        orthanc: its identifier in every Orthanc.
        dataset: its DICOM data set, less the file's header: what a C-STORE carries.
    """

    uid: str
    sop_class: str
    orthanc: str
    dataset: bytes = field(repr=False)

    @property
    def md5(self) -> str:
        return hashlib.md5(self.dataset).hexdigest()


@dataclass(frozen=True)
class Series:
    """A series of at most a thousand images, of a study and a patient of its own."""

    number: int
    count: int
    template: phantom.Phantom = SMALL

    def image(self, number: int, *, version: int = 0, sop_class: str = CT) -> Image:
        """One of its images.

        Args:
            number: from 0.
            version: of its pixels: another one is the same image with another content.
            sop_class: CT, or MR for one that has lost its way.
        """
        file = self.template.file(self.number, 1000 * self.number + number)
        header = pydicom.dcmread(BytesIO(file), stop_before_pixels=True)
        uid = str(header.SOPInstanceUID)
        # An identifier in every Orthanc: SHA-1 of the four of DICOM, in five groups.
        digest = hashlib.sha1(f"{header.PatientID}|{header.StudyInstanceUID}|{header.SeriesInstanceUID}|{uid}".encode()).hexdigest()
        orthanc = "-".join(digest[i : i + 8] for i in range(0, 40, 8))
        pixels = hashlib.sha256(f"{uid} {version}".encode()).digest()
        # Both SOP classes are of one length, and the pixels are last: no length in the data set changes.
        dataset = dataset_bytes(file).replace(CT.encode(), sop_class.encode())[: -len(pixels)] + pixels
        return Image(uid, sop_class, orthanc, dataset)

    def images(self) -> Iterator[Image]:
        """All of them, made one by one."""
        return (self.image(number) for number in range(self.count))
