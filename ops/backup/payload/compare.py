"""Runs in a container beside a node: compares its files with its index, which comes on the standard input.

A line of the index is a file's name, size and MD5, with tabs between them. Prints a line of JSON for each file that is missing, damaged or
orphaned, and one at the end with what was looked at. Orthanc puts the file 0123… into the folder 01/23 (FilesystemStorage::GetPath).
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from pathlib import Path

ROOT, PERCENT, DAY = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
#: When the index was as it is given, in seconds since 1970; 0 for now. Of a stack that was restored, that is when its backup began.
MOMENT = float(sys.argv[4])
#: A file that is younger than that, before this moment, may be one that the index does not list yet.
YOUNG_SECONDS = 60
#: Orthanc before 1.12.8 has the MD5 of nothing for files from 2 GiB on: nobody can tell whether they are as they were stored.
OF_NOTHING = hashlib.md5(b"").hexdigest()


def main() -> None:
    """Compare in both directions."""
    moment = MOMENT or time.time()
    # Sixteen bytes a file: an index may list a hundred million.
    listed = [bytearray() for _ in range(256)]
    files = size = hashed = 0
    for line in sys.stdin:
        name, wanted, md5 = line.rstrip("\n").split("\t")
        identifier = bytes.fromhex(name.replace("-", ""))
        listed[identifier[0]] += identifier
        files += 1
        size += int(wanted)
        # Another part of the files each day.
        chosen = (int.from_bytes(identifier[-4:], "big") + DAY * PERCENT) % 100 < PERCENT
        hashed += chosen
        tell(name, *fault(name, int(wanted), md5 if chosen else ""))
    for first, identifiers in enumerate(listed):
        known = {bytes(identifiers[i : i + 16]) for i in range(0, len(identifiers), 16)}
        for folder, _, names in os.walk(f"{ROOT}/{first:02x}"):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    state = Path(folder, name).stat()
                    if as_identifier(name) not in known and state.st_mtime < moment - YOUNG_SECONDS:
                        tell(name, "orphaned", f"{state.st_size} bytes")
    print(json.dumps({"files": files, "bytes": size, "hashed": hashed}))


def as_identifier(name: str) -> bytes:
    """A file's name as it is in the lists; empty for one that is not Orthanc's."""
    try:
        return bytes.fromhex(name.replace("-", ""))
    except ValueError:
        return b""


def fault(name: str, size: int, md5: str) -> tuple[str, str]:
    """What is wrong with a file, and how that shows; both empty where nothing is. Without an MD5, only its size is looked at."""
    try:
        with open(f"{ROOT}/{name[:2]}/{name[2:4]}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - pathlib is slower
            found = os.fstat(file.fileno()).st_size
            if found != size:
                return "damaged", f"{found} bytes, and {size} were stored"
            if md5 and md5 != OF_NOTHING and (digest := hashlib.file_digest(file, "md5").hexdigest()) != md5:
                return "damaged", f"MD5 {digest}, and {md5} was stored"
    except FileNotFoundError:
        return "missing", "no such file"
    except OSError as error:
        return "damaged", str(error.strerror)
    return "", ""


def tell(name: str, what: str, how: str) -> None:
    """Print what is wrong with a file, if anything is."""
    if what:
        print(json.dumps({"file": name, "what": what, "how": how}))


if __name__ == "__main__":
    main()
