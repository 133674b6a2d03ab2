"""Orthanc's contract image itself: that it demands what README.md says. What no stack of this project does is refused here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.orthanc_node import _as_file
from tests.stack.engine import docker

_USERS = {"RegisteredUsers": {"one": "pw-5c1e"}}
_CONFIGURE = 'python3 /startup/configure.py; echo "status $?"; cat /tmp/orthanc.json 2> /dev/null || true'


def configured(image: str, tmp_path: Path, *options: str, public: str = "{}", **secrets: str) -> str:
    """What comes of a public file and some secret ones."""
    for folder, files in {"orthanc": {"a.json": public}, "secrets": secrets}.items():
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name.replace("_json", ".json")).write_text(content)
    mounts = [f"--volume={tmp_path}/orthanc:/etc/orthanc:ro", f"--volume={tmp_path}/secrets:/run/secrets:ro"]
    return docker("run", "--rm", "--network=none", *mounts, *options, "--entrypoint=sh", image, "-c", _CONFIGURE)


@pytest.fixture
def image(contract: dict[str, str]) -> str:
    """Orthanc's contract image."""
    return contract["orthanc"]


@pytest.mark.parametrize(
    ("option", "result"),
    [("a$NAMEb", "a"), ("a${NAME}b", "ab"), ("a$HOME", "a/root"), ("a$", "a$")],
)
def test_variables_are_replaced(image: str, tmp_path: Path, option: str, result: str) -> None:
    said = configured(image, tmp_path, public=json.dumps({"Name": option}), users_json=json.dumps(_USERS))
    assert json.loads(said.partition("\n")[2])["Name"] == result


def test_in_what_the_program_writes_they_are_not(image: str, tmp_path: Path) -> None:
    said = configured(image, tmp_path, public=_as_file({"DicomAet": "CT$1", "Name": "$HOME"}), users_json=json.dumps(_USERS))
    made = json.loads(said.partition("\n")[2])
    assert (made["DicomAet"], made["Name"]) == ("CT$1", "$HOME")


def test_a_secret_with_one_value_is_placed_by_its_name_and_another_passed_over(image: str, tmp_path: Path) -> None:
    secrets = {"ORTHANC__DICOM_WEB__ROOT": "/dw/\n", "key.pem": "no option's"}
    said = configured(image, tmp_path, users_json=json.dumps(_USERS), **secrets)
    assert json.loads(said.partition("\n")[2])["DicomWeb"] == {"Root": "/dw/", "Enable": True}


def test_no_user_is_an_error(image: str, tmp_path: Path) -> None:
    assert configured(image, tmp_path).endswith("status 253")


def test_a_plugin_that_cannot_be_linked_is_an_error(image: str, tmp_path: Path) -> None:
    said = configured(image, tmp_path, "--user=1000", public='{"DicomWeb": {}}', users_json=json.dumps(_USERS))
    assert "failed to install" in said
    assert said.endswith("status 255")
