"""Another image of Orthanc, and the schema of an index in PostgreSQL: what preview and `up` say of it, and do before it moves.

Debian's suites have the same plugin (5.0, which wants revision 1), so the revision is set by hand, and the other image differs by a label.
"""

from __future__ import annotations

import json
import secrets as randomness
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs import names
from images import RESTIC, local_image
from tests.stack.engine import docker, free_ports
from tests.stack.test_backends import Commands, copy_commands
from tests.stack.test_backup import of_stack, wipe

pytestmark = pytest.mark.slow("a stack changes to another image and back, with a backup before: 2 min")

#: The images of this test's own: the other Orthanc, and PostgreSQL under a tag that begins with its major version.
_OTHER, _POSTGRES = "orthanc-stack/test-orthanc:1.13.0", "orthanc-stack/test-postgres:17.11"


class Site:
    """A stack with an index in PostgreSQL, and its checkout."""

    def __init__(self, folder: Path) -> None:
        self.name = f"test-schema-{randomness.token_hex(3)}"
        self.prefix = names.prefix(self.name)
        self.checkout = copy_commands(folder)
        self.it = Commands(self.checkout, self.name, PULUMI_BACKEND_URL=f"file://{self.checkout / 'state'}")
        ports = dict(zip(("httpPort", "dicomPort"), free_ports(2), strict=True))
        archive = {"name": "archive", "aet": "ARCHIVE", "index": "postgresql", **ports}
        self.set(environment="dev", nodes=[archive])
        self.run_image(local_image("orthanc"))

    def set(self, **settings: Any) -> None:
        file = self.checkout / f"Pulumi.{self.name}.yaml"
        content = yaml.safe_load(file.read_text()) if file.exists() else {"config": {}}
        content["config"] |= {f"{names.PROJECT}:{key}": value for key, value in settings.items()}
        file.write_text(yaml.safe_dump(content))

    def run_image(self, image: str) -> None:
        others = {"postgres": _POSTGRES, "restic": local_image(RESTIC)}
        self.set(images={"source": "registry", "orthanc": image, **others})

    def sql(self, statement: str) -> str:
        psql = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-AtXqc", statement, "orthanc_archive")
        return docker("exec", "--user", "postgres", f"{self.prefix}-db", *psql).strip()

    @property
    def revision(self) -> str:
        return self.sql("SELECT value FROM globalproperties WHERE property = 4")

    @property
    def containers(self) -> list[str]:
        return sorted(of_stack(self.prefix, "container"))

    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.checkout / "artifacts" / "preview" / f"{self.name}.json").read_text()))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("checkout"))
    build = tmp_path_factory.mktemp("other")
    (build / "Dockerfile").write_text(f"FROM {local_image('orthanc')}\nLABEL schema.test={site.name}\n")
    docker("build", "--quiet", "--tag", _OTHER, str(build))
    docker("tag", local_image("postgres"), _POSTGRES)
    try:
        site.it.run("up")
        yield site
    finally:
        wipe(site.prefix)
        docker("image", "rm", _OTHER, _POSTGRES, check=False)


def test_a_schema_that_moves_forward_is_told_and_backed_up_first(site: Site, tmp_path: Path) -> None:
    assert site.revision == "1"
    site.run_image(_OTHER)
    said = site.it.run("preview")
    assert "Schema" not in said, "the plugin wants the revision that is there"
    site.sql("DELETE FROM globalproperties WHERE property = 4")
    told = "The schema of the database of archive is revision 0, and the new image's PostgreSQL plugin 5.0 moves it to revision 1."
    assert told in site.it.run("preview")
    assert any(told in caution for caution in site.report()["cautions"])
    before = site.containers
    refused = site.it.run("up", status=1)
    assert told in refused
    assert "Add backup.to" in refused
    assert "--no-backup" in refused
    assert (site.containers, site.revision) == (before, "")
    site.set(backup={"to": str(tmp_path)})
    done = site.it.run("up")
    assert done.index(told) < done.index("RECOVERY SHEET") < done.index("checks, all ok")
    assert site.revision == "1"
    assert site.containers != before
    assert "Schema" not in site.it.run("up")


def test_an_image_that_is_too_old_is_refused_and_nothing_is_touched(site: Site) -> None:
    site.run_image(local_image("orthanc"))
    site.sql("UPDATE globalproperties SET value = '10' WHERE property = 4")
    before = site.containers
    shown = site.it.run("preview", "--save-plan", status=1)
    assert "5.0 knows none after revision 1" in shown
    assert "Rev10ToRev6.sql, Rev6ToRev5.sql, Rev5ToRev4.sql, Rev4ToRev3.sql, Rev3ToRev2.sql, Rev2ToRev1.sql" in shown
    assert site.report()["level"] == "failed"
    assert not (site.checkout / "artifacts" / "preview" / f"{site.name}.plan.json").exists()
    for options in ((), ("--no-backup",)):
        assert "too old for a database" in site.it.run("up", *options, status=1)
    assert (site.containers, site.revision) == (before, "10")
    site.sql("UPDATE globalproperties SET value = '1' WHERE property = 4")
    assert "Schema" not in site.it.run("up", "--no-backup")


def test_an_image_that_the_engine_does_not_hold_is_not_known_yet(site: Site) -> None:
    site.run_image("localhost:1/nobody/orthanc:1.2.3")
    assert "the engine does not hold localhost:1/nobody/orthanc:1.2.3" in site.it.run("preview", status=1)
    assert "nothing was touched" in site.it.run("up", status=1)
