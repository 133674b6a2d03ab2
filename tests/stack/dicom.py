"""DICOM as a device outside the stack speaks it, and images to send."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_role
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from tests.stack.harness import Node

SUCCESS = 0x0000
PATIENT = "PHANTOM^CT"

#: Files that ship inside pydicom's wheel: eleven SOP classes, five transfer syntaxes.
_SAMPLES = (
    *("CT_small", "MR_small", "693_J2KI", "examples_rgb_color", "examples_palette", "rtplan", "rtdose", "test-SR", "reportsi"),
    *("waveform_ecg", "liver_1frame", "SC_rgb_jpeg_dcmtk", "SC_rgb_rle_2frame"),
)


@dataclass(frozen=True)
class Study:
    samples: Sequence[FileDataset]
    series: Sequence[FileDataset]

    @property
    def images(self) -> list[FileDataset]:
        return [*self.samples, *self.series]

    @property
    def uids(self) -> set[str]:
        return {str(image.SOPInstanceUID) for image in self.images}


def sample_images() -> list[FileDataset]:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    return [pydicom.dcmread(folder / f"{name}.dcm") for name in _SAMPLES]


def ct_series(slices: int, size: int) -> list[FileDataset]:
    """A CT series of a phantom: a cylinder of water with a rod of bone in air, with noise."""
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    noise = np.random.default_rng(seed=1)
    y, x = np.mgrid[:size, :size] - size // 2
    water, bone = np.hypot(x, y) < size * 0.4, np.hypot(x - size // 5, y) < size * 0.05
    images = []
    for number in range(1, slices + 1):
        hounsfield = np.select([bone, water], [700, 0], -1000) + noise.normal(0, 12, (size, size))
        image = _image(study, number)
        image.SeriesInstanceUID, image.FrameOfReferenceUID = series, frame
        image.Rows = image.Columns = size
        image.ImagePositionPatient = [-250, -250, number * 2.5]
        image.PixelData = (hounsfield + 1024).astype("<i2").tobytes()
        images.append(image)
    return images


def _image(study: str, number: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.StudyID, image.AccessionNumber = study, "1", "A0001"
    image.PatientName, image.PatientID, image.PatientBirthDate, image.PatientSex = PATIENT, "PHANTOM-1", "19700101", "O"
    image.StudyDate = image.SeriesDate = image.ContentDate = "20260101"
    image.StudyTime = image.SeriesTime = image.ContentTime = "120000"
    image.StudyDescription, image.SeriesDescription, image.Modality = "Phantom", "Axial 2.5 mm", "CT"
    image.Manufacturer, image.ReferringPhysicianName, image.BodyPartExamined = "orthanc-stack tests", "", "CHEST"
    image.SeriesNumber, image.InstanceNumber, image.ImageType = 1, number, ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.ImageOrientationPatient, image.PixelSpacing, image.SliceThickness = [1, 0, 0, 0, 1, 0], [0.977, 0.977], 2.5
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 1
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = -1024, 1, "HU"
    image.KVP, image.WindowCenter, image.WindowWidth = 120, 40, 400
    return image


def as_file(image: Dataset) -> bytes:
    written = BytesIO()
    pydicom.dcmwrite(written, image, enforce_file_format=True)
    return written.getvalue()


def content(image: Dataset) -> dict[int, Any]:
    """Every element's value, less the two kinds that say nothing and that Orthanc leaves out: retired group lengths, trailing padding."""
    return {int(e.tag): e.value for e in image if e.tag.element != 0 and e.tag != 0xFFFCFFFC}


def read(file: bytes) -> FileDataset:
    return pydicom.dcmread(BytesIO(file))


def dataset_bytes(file: bytes) -> bytes:
    """A DICOM file less its preamble and its meta header, which each who writes a file writes anew."""
    length = int.from_bytes(file[140:144], "little")  # of (0002,0000), which is the first element: the length of the others
    assert file[128:136] == b"DICM\x02\x00\x00\x00", "not a DICOM file with a meta header"
    return file[144 + length :]


@contextmanager
def _association(node: Node, aet: str, contexts: Iterable[tuple[str, str]], **options: Any) -> Iterator[Any]:
    """An association with a node, under the AE title that it says of itself; not established where the node refuses it."""
    ae = AE(ae_title=aet)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 60
    for abstract, transfer in sorted(set(contexts)):
        ae.add_requested_context(abstract, transfer)
    if node.as_device:
        options["tls_args"] = (node.as_device, None)
    association = ae.associate(node.host, node.port, ae_title=node.aet, max_pdu=131072, **options)
    try:
        with _answers_for_the_caller(association):
            yield association
    finally:
        if association.is_established:
            association.release()


@contextmanager
def _answers_for_the_caller(association: Any) -> Iterator[None]:
    """Let pynetdicom's own thread take no answer.

    Each request lets it go on and the next one pauses it again; it can wake between the two and take the answer to the second, which
    then waits for ever (seen with pynetdicom 3.0.4 on a busy machine, one series in ten). Here it is paused all along.
    """
    checkpoint = association._reactor_checkpoint
    if association.is_established:
        checkpoint.clear()
        time.sleep(0.05)  # one round of its loop takes 1 ms
        checkpoint.set = lambda: None
    try:
        yield
    finally:
        vars(checkpoint).pop("set", None)
        checkpoint.set()


def echo(node: Node, aet: str) -> bool:
    """Whether a node answers a C-ECHO of this caller."""
    with _association(node, aet, [(Verification, ImplicitVRLittleEndian)]) as association:
        return bool(association.is_established and association.send_c_echo().get("Status") == SUCCESS)


def store(node: Node, aet: str, images: Sequence[FileDataset]) -> list[str]:
    """C-STORE: the SOP instance UIDs of those that the node took."""
    contexts = [(image.SOPClassUID, image.file_meta.TransferSyntaxUID) for image in images]
    with _association(node, aet, contexts) as association:
        if not association.is_established:
            return []
        answers = []
        for image in images:
            try:
                answers.append(association.send_c_store(image).get("Status") == SUCCESS)
            except (RuntimeError, ValueError):  # no presentation context, or the association ended
                answers.append(False)
    return [str(image.SOPInstanceUID) for image, taken in zip(images, answers, strict=True) if taken]


def store_bytes(node: Node, aet: str, dataset: bytes, seconds: float = 1) -> bool | None:
    """C-STORE of what need not be a data set: whether the node says that it took it; None where it does not answer in this time.

    Orthanc does not answer a data set that it cannot read to its end, and does not hang up either. Here the caller does.
    """
    request = C_STORE()
    request.MessageID, request.Priority, request.DataSet = 1, 2, BytesIO(dataset)
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, generate_uid()
    with _association(node, aet, [(CTImageStorage, ExplicitVRLittleEndian)]) as association:
        if not association.is_established:
            return None
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        end, answer = time.monotonic() + seconds, None
        # Not get_msg(block=True): while pynetdicom's thread is paused, nobody tells it that the node hung up.
        while answer is None and time.monotonic() < end and association.dul.state_machine.current_state != "Sta1":
            time.sleep(0.02)
            _, answer = association.dimse.get_msg(block=False)
        if answer is None:
            association.abort()
    return None if answer is None or answer.Status is None else answer.Status == SUCCESS


def _ask(node: Node, aet: str, service: str, model: str, *asked: Any, **options: Any) -> list[tuple[Dataset, Dataset | None]]:
    """What a node answers to a query; nothing where it does not take the caller, or what it asks for."""
    # An image that comes by C-GET needs a context as well.
    contexts = [(model, ImplicitVRLittleEndian), *([(CTImageStorage, ExplicitVRLittleEndian)] if options else [])]
    with _association(node, aet, contexts, **options) as association:
        if not association.is_established or not association.accepted_contexts:
            return []
        return list(getattr(association, service)(*asked, model))


def _answered(answers: Sequence[tuple[Dataset, Dataset | None]]) -> bool:
    """Whether there is a status, of success or not. A request that is not allowed is answered with an abort."""
    return bool(answers) and "Status" in answers[-1][0]


def find(node: Node, aet: str, patient: str) -> list[str] | None:
    """C-FIND: the studies of a patient; None where it is refused."""
    query = _query(PatientName=patient, StudyInstanceUID="")
    answers = _ask(node, aet, "send_c_find", StudyRootQueryRetrieveInformationModelFind, query)
    if not answers or answers[-1][0].get("Status") != SUCCESS:
        return None
    return [str(found.StudyInstanceUID) for _, found in answers if found is not None]


def move(node: Node, aet: str, study: str, to: str) -> bool:
    """C-MOVE: whether the node answers."""
    return _answered(_ask(node, aet, "send_c_move", StudyRootQueryRetrieveInformationModelMove, _query(StudyInstanceUID=study), to))


def get(node: Node, aet: str, study: str) -> bool:
    """C-GET: whether the node answers."""
    takes = [build_role(CTImageStorage, scp_role=True)]
    model = StudyRootQueryRetrieveInformationModelGet
    return _answered(_ask(node, aet, "send_c_get", model, _query(StudyInstanceUID=study), ext_neg=takes))


def worklist(node: Node, aet: str) -> bool:
    """C-FIND of a modality worklist: whether the node answers."""
    query = Dataset()
    query.PatientName, query.ScheduledProcedureStepSequence = "*", [Dataset()]
    return _answered(_ask(node, aet, "send_c_find", ModalityWorklistInformationFind, query))


def ask_to_commit(node: Node, aet: str, image: Dataset) -> bool:
    """N-ACTION of storage commitment: whether the node takes the request. Its answer comes by another association, and is not awaited."""
    request, item = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    request.TransactionUID, request.ReferencedSOPSequence = generate_uid(), [item]
    with _association(node, aet, [(StorageCommitmentPushModel, ImplicitVRLittleEndian)]) as association:
        if not association.is_established or not association.accepted_contexts:
            return False
        status, _ = association.send_n_action(request, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
    return bool(status.get("Status") == SUCCESS)


def _query(**keys: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    for key, value in keys.items():
        setattr(query, key, value)
    return query
