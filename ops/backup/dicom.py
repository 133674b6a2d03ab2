"""What is read of a DICOM file: Orthanc's identifiers, whether it is whole, and its meta header."""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import Final

#: Value representations whose length has four bytes (DICOM PS3.5, 7.1.2).
_LONG: Final = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_UNDEFINED: Final = 0xFFFFFFFF
_ENDS: Final = (0xFFFEE00D, 0xFFFEE0DD)
_UID, _SYNTAX, _ROWS = 0x00020003, 0x00020010, 0x00280010
_PIXELS: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
#: PatientID, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID.
_IDENTIFIERS: Final = (0x00100020, 0x0020000D, 0x0020000E, 0x00080018)
#: Transfer syntaxes that are not explicit VR, little endian: byte order, and whether VRs are explicit.
_OTHER: Final = {"1.2.840.10008.1.2": ("<", False), "1.2.840.10008.1.2.2": (">", True)}
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True)
class Image:
    """Orthanc's identifiers of a file."""

    instance: str
    patient: str


def identifier(*values: str) -> str:
    """Orthanc's identifier of a patient, study, series or instance (DicomInstanceHasher): by these, from the PatientID down."""
    digest = hashlib.sha1("|".join(values).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[i : i + 8] for i in range(0, 40, 8))


def look(file: bytes) -> Image:
    """What a file is. A ValueError where it is not DICOM, or not whole: a node that died may have left half of one."""
    if file[128:132] != b"DICM":
        raise ValueError("it is not DICOM")
    try:
        start, meta = _meta(file)
        syntax = meta[_SYNTAX].decode("ascii").strip(" \0")
        data = zlib.decompress(file[start:], -15) if syntax == _DEFLATED else file[start:]
        found: dict[int, bytes] = {}
        _walk(data, 0, *_OTHER.get(syntax, ("<", True)), found)
        # Without a PatientID, Orthanc takes an empty one.
        values = [found.get(tag, b"" if tag == _IDENTIFIERS[0] else None) for tag in _IDENTIFIERS]
        # Orthanc takes the UTF-8 of other characters, which depends on the file's character set.
        texts = [value.decode("ascii").strip(" \0") for value in values if value is not None]
    except (struct.error, zlib.error, KeyError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is no whole DICOM file, or not readable to this program ({type(error).__name__})") from error
    if len(texts) < len(_IDENTIFIERS):
        raise ValueError("it lacks a UID")
    # Orthanc may keep the part before the pixels as a file of its own (DicomUntilPixelData).
    if _ROWS in found and not found.keys() & _PIXELS:
        raise ValueError("it is an image without pixels")
    return Image(identifier(*texts), identifier(texts[0]))


def with_header(file: bytes, other: bytes) -> bytes:
    """A file with the meta header of another one, which names it. A ValueError where either cannot be read.

    The part that the DICOM protocol transports has none: each node that stores an image writes its own.
    """
    try:
        (start, meta), (end, theirs) = _meta(file), _meta(other)
        before, after = (b"\2\0\3\0UI" + struct.pack("<H", len(uid)) + uid for uid in (theirs[_UID], meta[_UID]))
    except (struct.error, KeyError) as error:
        raise ValueError("its meta header cannot be read") from error
    header = other[144:end].replace(before, after, 1)
    return other[:140] + struct.pack("<I", len(header)) + header + file[start:]


def _meta(file: bytes) -> tuple[int, dict[int, bytes]]:
    """Where the meta header ends, and what is in it. Its first element is its length (DICOM PS3.10, 7.1)."""
    end, meta = 144 + struct.unpack_from("<I", file, 140)[0], dict[int, bytes]()
    _walk(file[:end], 132, "<", True, meta)
    return end, meta


def _walk(data: bytes, at: int, order: str, explicit: bool, found: dict[int, bytes], *, nested: bool = False) -> int:
    """Note the values of elements, to the end of the data or, `nested`, of the item or sequence; where that is."""
    while at < len(data):
        group, element = struct.unpack_from(f"{order}HH", data, at)
        tag, vr = group << 16 | element, data[at + 4 : at + 6]
        if not explicit or group == 0xFFFE:
            vr, (length,), at = b"", struct.unpack_from(f"{order}I", data, at + 4), at + 8
        elif vr in _LONG:
            (length,), at = struct.unpack_from(f"{order}I", data, at + 8), at + 12
        else:
            (length,), at = struct.unpack_from(f"{order}H", data, at + 6), at + 8
        if nested and tag in _ENDS:
            return at
        if length == _UNDEFINED:
            # What is of undefined length and unknown VR is implicit, little endian (DICOM PS3.5, 6.2.2).
            unknown = vr == b"UN"
            found[tag] = b""
            at = _walk(data, at, "<" if unknown else order, explicit and not unknown, {}, nested=True)
        else:
            found[tag] = data[at : at + length] if length < 1024 else b""
            at += length
    if nested or at > len(data):
        raise struct.error("cut off")
    return at
