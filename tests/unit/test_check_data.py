"""What the script of `check-data` finds in a node's files, how fast it reads, and how it goes on where it was broken off."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ops.backup import check

#: It notes after each file how far it has come, and not every few seconds.
SCRIPT = check._SCRIPT.replace("SAVE_SECONDS = 5\n", "SAVE_SECONDS = -1\n")
UUID = "0123aaaa-0000-4000-8000-00000000000{}"
IMAGE = "78805a221a988e79ef3f42d7c5bfd418"
INDEX = "".join(f"{UUID.format(i)}\t5\t{IMAGE}\n" for i in range(4))
WHOLE = {"files": 4, "bytes": 20, "hashed": 4, "read": 20, "before": 0}


def command(folder: Path, *, percent: int = 100, day: int = 0, moment: float = 0.0, rate: int = 0, progress: Path | str = "") -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(folder), str(percent), str(day), str(moment), str(rate), str(progress)]


def compare(folder: Path, index: str, **options: Any) -> list[dict[str, Any]]:
    """What the script in the container prints."""
    done = subprocess.run(command(folder, **options), input=f"{index}.\n", capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def told(lines: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(one["file"], one["what"]) for one in lines if "what" in one}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A node's files: four as they were stored."""
    (tmp_path / "01" / "23").mkdir(parents=True)
    for i in range(4):
        (tmp_path / "01" / "23" / UUID.format(i)).write_bytes(b"image")
    return tmp_path


def test_files_that_are_as_the_index_says_are_none_of_its_words(files: Path) -> None:
    assert compare(files, INDEX) == [WHOLE]
    # Not compared: one without an MD5, and those to which Orthanc before 1.12.8 gave the MD5 of nothing.
    assert len(compare(files, INDEX.replace(IMAGE, ""))) == 1
    assert len(compare(files, INDEX.replace(IMAGE, "d41d8cd98f00b204e9800998ecf8427e"))) == 1


def test_each_fault_is_found_and_told(files: Path) -> None:
    folder = files / "01" / "23"
    (folder / UUID.format(0)).unlink()
    (folder / UUID.format(1)).write_bytes(b"imagf")
    (folder / UUID.format(2)).write_bytes(b"image.")
    # The last one is a copy of a file of the index, in a folder that is not its own.
    (files / "ff").mkdir()
    others = (folder / "ff", folder / UUID.format(8), folder / "not of ours", files / "ff" / UUID.format(3))
    for path in others:
        path.write_bytes(b"x")
    for path in others[1:]:
        os.utime(path, (0, 0))
    (files / "index").write_bytes(b"no image")
    assert told(compare(files, INDEX)) == {
        (UUID.format(0), "missing"),
        (UUID.format(1), "damaged"),
        (UUID.format(2), "damaged"),
        (UUID.format(8), "orphaned"),
        ("01/23/not of ours", "orphaned"),
        (f"ff/{UUID.format(3)}", "orphaned"),
    }
    # Sizes alone; and of a stack that was restored: a file of after its backup is no orphan.
    assert told(compare(files, INDEX, percent=0, moment=1.0)) == {(UUID.format(0), "missing"), (UUID.format(2), "damaged")}


@pytest.mark.parametrize("index", [INDEX, ".\n" + INDEX + "no name\t5\t\n"])
def test_an_index_that_was_not_read_to_its_end_is_refused(files: Path, index: str) -> None:
    done = subprocess.run(command(files), input=index, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "was not read to its end" in done.stderr or "Orthanc gives files no such name: no name" in done.stderr


@pytest.mark.parametrize(("percent", "days"), [(25, 1), (25, 7), (5, 1), (5, 7), (30, 1)])
def test_a_sample_is_another_one_each_time_until_all_were_compared(tmp_path: Path, percent: int, days: int) -> None:
    """With a check each day, or each week: the files whose MD5 is compared are those that are damaged here."""
    (tmp_path / "01" / "23").mkdir(parents=True)
    names = [f"0123aaaa-0000-4000-8000-{i:012x}" for i in range(100)]
    for name in names:
        (tmp_path / "01" / "23" / name).write_bytes(b"imagf")
    index = "".join(f"{name}\t5\t{IMAGE}\n" for name in names)
    found = [told(compare(tmp_path, index, percent=percent, day=20_000 + days * run)) for run in range(-(-100 // percent))]
    assert {len(one) for one in found} == {percent}
    assert len(set().union(*found)) == 100


def test_no_more_is_read_than_the_rate(files: Path) -> None:
    path = files / "01" / "23" / UUID.format(9)
    path.write_bytes(bytes(3_000_000))
    index = f"{INDEX}{path.name}\t3000000\t8d8a1f3b0e0c3f7e4b8f3c8b4b6a0d5e\n"
    began = time.monotonic()
    compare(files, index, rate=2_000_000)
    assert time.monotonic() - began >= 1.5


def test_it_goes_on_where_it_was_broken_off(files: Path, tmp_path: Path) -> None:
    """Killed at a file that is slow to read; meanwhile files come, go, are damaged and repaired."""
    folder, progress = files / "01" / "23", tmp_path / "progress"
    (folder / UUID.format(1)).write_bytes(b"imagf")
    (folder / UUID.format(2)).write_bytes(bytes(3_000_000))
    index = INDEX.replace(f"{UUID.format(2)}\t5", f"{UUID.format(2)}\t3000000")
    with subprocess.Popen(command(files, rate=1000, progress=progress), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdin is not None
        run.stdin.write(f"{index}.\n".encode())
        run.stdin.close()
        while not progress.exists() or UUID.format(1) not in progress.read_text():
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    with progress.open("a") as file:
        file.write('\n["0123aaaa-0000-4000-8000-00000000')  # killed while it noted
    # Before where it stopped: damaged, which the next check finds; an orphan. After it: missing.
    (folder / UUID.format(0)).write_bytes(b"imagf")
    (folder / "an orphan").write_bytes(b"")
    os.utime(folder / "an orphan", (0, 0))
    (folder / UUID.format(3)).unlink()
    (folder / UUID.format(2)).write_bytes(b"image")
    *faults, counts = compare(files, INDEX, progress=progress)
    assert told(faults) == {(UUID.format(1), "damaged"), (UUID.format(3), "missing"), ("01/23/an orphan", "orphaned")}
    assert (counts["hashed"], counts["before"]) == (4, 2)
    # It has come to the end. What was damaged is looked at again, and what is gone since is missing.
    (folder / UUID.format(1)).write_bytes(b"image")
    (folder / UUID.format(0)).unlink()
    *faults, counts = compare(files, INDEX, progress=progress)
    assert told(faults) == {(UUID.format(0), "missing"), (UUID.format(3), "missing"), ("01/23/an orphan", "orphaned")}
    assert counts["before"] == 4
    # Begun anew.
    progress.unlink()
    assert compare(files, INDEX, progress=progress)[-1]["before"] == 0
