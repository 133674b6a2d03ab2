"""Input that is no DICOM, or more than anybody could hold: bytes for the REST API, data sets for C-STORE, PDUs for the DICOM port.

Each is small to send. What it could become is bounded: half a gigabyte from an archive, four from a length.
"""

from __future__ import annotations

import gzip
import random
import struct

from tests.stack.dicom import as_file, ct_series, dataset_bytes
from tests.unit.archives import zipped

_ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
_SEQUENCE = b"\x40\x00\x30\xa7SQ\x00\x00\xff\xff\xff\xff"  # (0040,A730), of undefined length
_ENDS = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_PIXELS = b"\xe0\x7f\x10\x00OW\x00\x00"

_FILE = as_file(ct_series(slices=1, size=64)[0])
_SET = dataset_bytes(_FILE)
_META = _FILE[: -len(_SET)]
#: The image's tags below group 0028, and all but its pixels.
_TAGS = _SET[: _SET.index(b"\x28\x00\x02\x00US")]
_HEAD = _SET[: _SET.index(b"\xe0\x7f\x10\x00")]


def _noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _nested(depth: int) -> bytes:
    return _TAGS + (_SEQUENCE + _ITEM) * depth + _ENDS * depth


def _long(value: int) -> bytes:
    return struct.pack("<I", value)


#: Data sets, for C-STORE, and behind a meta header for the REST API.
DATASETS: dict[str, bytes] = {
    "cut in the middle": _SET[: len(_SET) // 2],
    "cut before the last byte": _SET[:-1],
    "sequences 5,000 deep": _nested(5_000),
    "sequences 100,000 deep, without an end": _nested(100_000)[: len(_TAGS) + 100_000 * 20],
    "pixels longer than the file": _HEAD + _PIXELS + _long(1 << 28) + b"\x01" * 100,
    "pixels of an odd length": _HEAD + _PIXELS + _long(101) + b"\x01" * 101,
    "pixels of undefined length that are not encapsulated": _HEAD + _PIXELS + _long(0xFFFFFFFF) + b"\x01" * 100,
    "a text of two gigabytes": _TAGS + b"\x40\x00\x60\xa1UT\x00\x00" + _long(0x7FFFFFFE) + b"text",
    "an item longer than its sequence": _TAGS + _SEQUENCE[:8] + _long(16) + _ITEM[:4] + _long(1 << 24) + b"\x00" * 8,
    "a tag's name that there is not": _TAGS + b"\x40\x00\x30\xa7??\x08\x00" + b"\x00" * 8,
}


def _claiming(size: int) -> bytes:
    """An archive of one image that says, in both of its headers, that it becomes so large."""
    made = bytearray(zipped({"a.dcm": _FILE}))
    entry = made.index(b"PK\x01\x02")
    made[22:26] = made[entry + 24 : entry + 28] = _long(size)
    return bytes(made)


#: Bodies of POST /instances.
FILES: dict[str, bytes] = {
    "nothing": b"",
    "noise": _noise(1, 100_000),
    "noise behind DICM": bytes(128) + b"DICM" + _noise(2, 100_000),
    "a meta header that is cut": _META[:-3],
    "a meta header longer than the file": _FILE[:140] + b"\xff\xff\xff\xff" + _FILE[144:],
    **{name: _META + content for name, content in DATASETS.items()},
    "pixels of 0xFFFFFFFE bytes": _META + _HEAD + _PIXELS + _long(0xFFFFFFFE) + b"\x01" * 100,
    "noise behind PK": b"PK\x03\x04" + _noise(3, 5_000),
    "an archive that is cut": zipped({"a.dcm": _FILE})[:-30],
    "an archive that leads out of its folder": zipped({"../../../../etc/orthanc/evil.json": b"{}", "/etc/evil": b"x"}),
    "an archive in an archive": zipped({"a.zip": zipped({"a.dcm": _FILE})}),
    # Not of zeros: those are eight million empty elements in each 64 MB, a minute's work.
    "an archive that becomes 512 MB": zipped({f"{i}.dcm": b"\xff" * (64 << 20) for i in range(8)}),
    "an archive that claims 4 GB": _claiming(0xFFFFFFF0),
}

#: The same with Content-Encoding: gzip.
COMPRESSED: dict[str, bytes] = {
    "noise behind gzip": b"\x1f\x8b" + _noise(4, 500),
    "one byte": b"\x1f",
    "gzip that claims 4 GB": gzip.compress(_FILE, mtime=0)[:-4] + _long(0xFFFFFFF0),
}

#: Lengths of a body of three bytes.
LENGTHS = ("9663676416", "9223372036854775807", "99999999999999999999", "-1", "1e9")


def _request(items: bytes = b"") -> bytes:
    """An A-ASSOCIATE-RQ: DICOM PS3.8, table 9-11."""
    body = struct.pack(">HH", 1, 0) + b"ANY-SCP".ljust(16) + b"WORKSTATION".ljust(16) + bytes(32) + items
    return b"\x01\x00" + struct.pack(">I", len(body)) + body


#: For the DICOM port.
PDUS: dict[str, bytes] = {
    "a type that there is not": b"\xff\x00\x00\x00\x00\x04abcd",
    "four gigabytes": b"\x01\x00\xff\xff\xff\xff" + bytes(100),
    "two gigabytes, as far as they go": b"\x01\x00\x7f\xff\xff\xff" + b"A" * 100_000,
    "nothing in it": b"\x01\x00\x00\x00\x00\x00",
    "data before an association": b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x04\x01\x03ab",
    "an item longer than the PDU": _request(b"\x10\x00\xff\xff1.2.840"),
    "2,000 contexts that are cut": _request(b"\x20\x00\x00\x10" * 2_000),
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "noise": _noise(5, 65_536),
}

#: The beginning of a request for an association, of which the rest never comes.
STALLED = b"\x01\x00\x00\x00"
