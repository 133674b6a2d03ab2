"""The disk of a node that forwards is full while its destination is away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.stack.dicom import as_file, ct_series, store
from tests.stack.engine import docker, eventually
from tests.stack.harness import Stack, copy_program, need_pulumi, without_nodes

pytestmark = pytest.mark.slow("a stack of its own, whose client's volume is small: 25 s")

SCANNER = "SCANNER"
#: In MiB: the client's volume, of which 2 % are kept, and what is left of it for images.
_VOLUME, _LEFT = 256, 25
_VOLUME_MADE = "    return docker.Volume(\n        logical_name,\n"
_SMALL = f'{{"type": "tmpfs", "device": "tmpfs", "o": "size={_VOLUME}m"}} if logical_name == "client-data" else None'


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A client with a small volume, its index in it, and an archive."""
    need_pulumi()
    program = copy_program(tmp_path_factory.mktemp("full"))
    file = program / "components" / "container.py"
    assert _VOLUME_MADE in file.read_text()
    file.write_text(file.read_text().replace(_VOLUME_MADE, f"{_VOLUME_MADE}        driver_opts={_SMALL},\n"))
    stack = without_nodes(program)
    stack.settings["modalities"] = [{"name": "scanner", "aet": SCANNER, "host": "192.0.2.1", "nodes": ["client"], "allow": ["store"]}]
    stack.add_node("archive", index="sqlite")
    stack.add_node("client", index="sqlite", forwardTo=["archive"], keep="until-confirmed")
    with stack.deployed():
        yield stack


def test_a_client_whose_disk_is_full_refuses_images_delivers_its_backlog_and_accepts_again(stack: Stack) -> None:
    """D17: of a disk that is full to the last byte, SQLite frees nothing: no record could be written, and nothing be deleted."""
    client, archive = stack.node("client"), stack.node("archive")
    images = ct_series(slices=2 * _LEFT, size=512)  # of half a MiB
    docker("stop", f"{stack.prefix}-archive")
    of_others = f"head -c {_VOLUME - _LEFT}M /dev/zero > /var/lib/orthanc/db/of-others"
    docker("exec", f"{stack.prefix}-client", "sh", "-c", of_others)
    time.sleep(2)  # it looks at its disk each second
    taken = set(store(client, SCANNER, images))
    assert 20 < len(taken) < len(images)
    with contextlib.suppress(OSError):  # it hangs up after its answer, which may be before all was sent
        assert client.ask("/instances", as_file(images[-1]))[0] == 403
    assert len(client.get("/instances")) == len(taken)
    files = docker("exec", f"{stack.prefix}-client", "find", "/var/lib/orthanc/db", "-type", "f", "-path", "*-*-*").split()
    assert len(files) == len(taken), "what was refused left the beginning of a file"

    docker("start", f"{stack.prefix}-archive")
    eventually("the client has deleted what it took", lambda: client.get("/instances") == [], seconds=120)
    assert archive.holds(taken).keys() == taken
    rest = [image for image in images if image.SOPInstanceUID not in taken]
    assert set(store(client, SCANNER, rest)) == {str(image.SOPInstanceUID) for image in rest}
    everything = {str(image.SOPInstanceUID) for image in images}
    eventually("the archive has everything", lambda: archive.holds(everything).keys() == everything, seconds=120)
