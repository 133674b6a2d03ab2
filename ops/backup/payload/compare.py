"""Runs in a container beside a node: compares its files with its index, which comes on the standard input.

A line of the index is a file's name, size and MD5, with tabs between them; a line with a dot alone tells that the index was read to its
end. Prints a line of JSON for each file that is missing, damaged or orphaned, and one at the end with what was looked at. Orthanc puts the
file 0123… into the folder 01/23 (FilesystemStorage::GetPath).

Files are read in the order of their names. How far that has come is noted in a file, and goes on from there when it was broken off. Which
files are missing or orphaned is always looked at anew, and so is each file that was damaged.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT, PERCENT, DAY = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
#: When the index was as it is given, in seconds since 1970; 0 for now. Of a stack that was restored, that is when its backup began.
MOMENT = float(sys.argv[4])
#: Bytes to read in a second at most; 0 for no limit.
RATE = int(sys.argv[5])
#: The file with the progress; empty for none.
PROGRESS = sys.argv[6] or os.devnull
#: A file that is younger than that, before this moment, may be one that the index does not list yet.
YOUNG_SECONDS = 60
#: Orthanc before 1.12.8 has the MD5 of nothing for files from 2 GiB on: nobody can tell whether they are as they were stored.
OF_NOTHING = hashlib.md5(b"").hexdigest()
SAVE_SECONDS = 5
CHUNK = 1 << 20
#: It comes before all names when they are sorted.
END = ".\n"


class Progress:
    """How far the files were read, by this run and by those before it that were broken off."""

    def __init__(self) -> None:
        self.after = ""  #: the name of the last file that was looked at
        self.hashed = self.size = 0  #: files whose MD5 was compared, and the bytes that were read for that
        self.damaged: list[str] = []
        if Path(PROGRESS).exists():
            for line in Path(PROGRESS).read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    self.after, self.hashed, self.size, damaged = json.loads(line)
                except ValueError:
                    continue  # it was broken off in the middle of a line
                self.damaged += damaged
        self.before, self.again = self.hashed, frozenset(self.damaged)
        self.file = open(PROGRESS, "a", encoding="utf-8")  # noqa: PTH123, SIM115 - open to the end
        self.noted = len(self.damaged)
        self.saved = self.due = time.monotonic()

    def passed(self, name: str) -> None:
        """Go on to the next file."""
        self.after = name
        if time.monotonic() > self.saved + SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Note it, in a line of its own also after one that was broken off."""
        self.file.write("\n" + json.dumps([self.after, self.hashed, self.size, self.damaged[self.noted :]]))
        self.file.flush()
        self.noted, self.saved = len(self.damaged), time.monotonic()

    def read(self, file: IO[bytes]) -> str:
        """A file's MD5, read no faster than the rate."""
        digest = hashlib.md5()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            self.size += len(chunk)
            if RATE:
                # A disk that was slow for a while is not made up for.
                self.due = max(self.due + len(chunk) / RATE, time.monotonic())
                time.sleep(max(self.due - time.monotonic(), 0))
        return digest.hexdigest()


def main() -> None:
    """Compare in both directions."""
    moment = MOMENT or time.time()
    progress = Progress()
    files = size = 0
    # All of the index at once: else its database would have a query open for hours. And on the disk: it may list a hundred million files.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as index:
        subprocess.run(["sort", "-S", "64M"], stdin=sys.stdin, stdout=index, env={**os.environ, "LC_ALL": "C"}, check=True)
        index.seek(0)
        for folder, listed in folders(index):
            there = names_in(folder)
            for name in sorted(there - listed.keys()):
                tell_orphan(name, moment)
            for name, (wanted, md5) in listed.items():
                files += 1
                size += wanted
                look(name, wanted, md5, progress, there)
    progress.save()
    print(json.dumps({"files": files, "bytes": size, "hashed": progress.hashed, "read": progress.size, "before": progress.before}))


def folders(index: IO[str]) -> Iterator[tuple[str, dict[str, tuple[int, str]]]]:
    """Each of the 256 folders, and what a sorted index lists in it, in order: sizes and MD5s by name."""
    if index.readline() != END:
        sys.exit("the index was not read to its end")
    line = index.readline()
    for folder in (f"{first:02x}" for first in range(256)):
        listed = {}
        while line.startswith(folder):
            name, size, md5 = line.rstrip("\n").split("\t")
            listed[name] = int(size), md5
            line = index.readline()
        yield folder, listed
    if line:
        sys.exit(f"Orthanc gives files no such name: {line}")


def names_in(folder: str) -> set[str]:
    """The files in a folder: their names where these have their place there, else their paths."""
    found = set()
    for path, _, names in os.walk(f"{ROOT}/{folder}"):
        found |= {name if path_of(name) == f"{path}/{name}" else f"{path}/{name}".removeprefix(f"{ROOT}/") for name in names}
    return found


def path_of(name: str) -> str:
    """Where a file is."""
    return f"{ROOT}/{name}" if "/" in name else f"{ROOT}/{name[:2]}/{name[2:4]}/{name}"


def tell_orphan(name: str, moment: float) -> None:
    """Print that a file is orphaned, if it is old enough."""
    try:
        state = os.stat(path_of(name))  # noqa: PTH116 - pathlib is slower
    except FileNotFoundError:  # deleted meanwhile
        return
    if state.st_mtime < moment - YOUNG_SECONDS:
        tell(name, "orphaned", f"{state.st_size} bytes")


def look(name: str, size: int, md5: str, progress: Progress, there: set[str]) -> None:
    """Look at a file that the index lists, unless an earlier run did, and found it whole."""
    new = name > progress.after
    if not (new or name in progress.again or name not in there):
        return
    # Another part of the files each day.
    chosen = (int(name[-8:], 16) + DAY * PERCENT) % 100 < PERCENT
    what, how = fault(name, size, md5 if chosen and md5 != OF_NOTHING else "", progress)
    tell(name, what, how)
    if new:
        progress.hashed += chosen
        if what == "damaged":
            progress.damaged.append(name)
        progress.passed(name)


def fault(name: str, size: int, md5: str, progress: Progress) -> tuple[str, str]:
    """What is wrong with a file, and how that shows; both empty where nothing is. Without an MD5, only its size is looked at."""
    try:
        with open(path_of(name), "rb", buffering=0) as file:  # noqa: PTH123 - pathlib is slower
            found = os.fstat(file.fileno()).st_size
            if found != size:
                return "damaged", f"{found} bytes, and {size} were stored"
            if md5 and (digest := progress.read(file)) != md5:
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
