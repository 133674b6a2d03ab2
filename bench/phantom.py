"""DICOM files to send: generated, the same in every run but for their identifiers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

PER_SERIES: Final = 100
#: A root of its own for generated identifiers (PS3.5 B.2: 2.25 and a number).
_ROOT = "2.25.3141592653589793238462643383279"
_STUDY, _SERIES, _INSTANCE = (f"{_ROOT}.{kind}.{'0' * 9}".replace(".000000000", ".100000000") for kind in (1, 2, 3))
_PATIENT = "BENCH-100000000"


@dataclass(frozen=True)
class Kind:
    """A kind of image.

    Attributes:
        name: what it is called in the tables.
        size: rows and columns.
    """

    name: str
    size: int


SMALL = Kind("small (64x64)", 64)
CT = Kind("CT (512x512)", 512)


class Phantom:
    """A CT of a cylinder of water with noise; identifiers of equal length are put into the finished file."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._template = _file(kind.size)
        for text in (_STUDY, _SERIES, _INSTANCE, _PATIENT):
            if text.encode() not in self._template:
                raise AssertionError(text)

    def file(self, series: int, instance: int) -> bytes:
        """The file of one image. A study of one patient has one series.

        Args:
            series: below a hundred million; names study, series and patient.
            instance: likewise; unique over all series.
        """
        series_number, instance_number = f"1{series:08d}", f"1{instance:08d}"
        return (
            self._template.replace(_INSTANCE.encode(), f"{_ROOT}.3.{instance_number}".encode())
            .replace(_SERIES.encode(), f"{_ROOT}.2.{series_number}".encode())
            .replace(_STUDY.encode(), f"{_ROOT}.1.{series_number}".encode())
            .replace(_PATIENT.encode(), f"BENCH-{series_number}".encode())
        )

    def files(self, images: int, first_series: int = 0, per_series: int = PER_SERIES) -> Iterator[bytes]:
        """The files of one series after the other."""
        return (self.file(first_series + i // per_series, first_series * per_series + i) for i in range(images))


def write(files: Iterable[bytes], folder: Path) -> Path:
    """Write files into a new folder."""
    folder.mkdir()
    for i, file in enumerate(files):
        (folder / f"{i:05}.dcm").write_bytes(file)
    return folder


def _file(size: int) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(_INSTANCE)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, _INSTANCE
    image.StudyInstanceUID, image.SeriesInstanceUID, image.StudyID = _STUDY, _SERIES, "1"
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = "Bench^Phantom", _PATIENT, "19700101", "O"
    image.StudyDate = image.SeriesDate = "20260101"
    image.StudyTime = image.SeriesTime = "120000"
    image.AccessionNumber, image.Modality, image.Manufacturer = "B1", "CT", "orthanc-stack bench"
    image.SeriesNumber, image.InstanceNumber = 1, 1
    image.Rows = image.Columns = size
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 1
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.RescaleIntercept, image.RescaleSlope = -1024, 1
    y, x = np.mgrid[:size, :size] - size // 2
    hounsfield = np.where(np.hypot(x, y) < size * 0.4, 0, -1000) + np.random.default_rng(seed=1).normal(0, 12, (size, size))
    image.PixelData = (hounsfield + 1024).astype("<i2").tobytes()
    written = BytesIO()
    pydicom.dcmwrite(written, image, enforce_file_format=True)
    return written.getvalue()
