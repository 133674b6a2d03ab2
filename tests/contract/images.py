"""The contract images: those built here, behind what the registry's demand at their start. README.md has the list."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from images import local_image
from tests.stack.engine import docker

_FOLDER = Path(__file__).parent

#: Named like the registry's, as a hospital's mirror would have them, so that the stack file and the policy pack read them alike. No
#: `.invalid` can be pulled, and the real names stay what they are: a user's engine may hold the real images.
IMAGES = {
    "orthanc": "contract.invalid/orthancteam/orthanc:26.8.1",
    "postgres": "contract.invalid/library/postgres:17.11",
    "adminer": "contract.invalid/library/adminer:6.0.1",
}


def build() -> None:
    """Build them: some layers on what images/ has built, without a network."""
    for role, name in IMAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder) / role
            shutil.copytree(_FOLDER / role, context)
            if role == "orthanc":
                _compile(context / "page.c", context / "page.so")
            # What does not change is in the builder's cache: a second build takes a second.
            command = ["docker", "build", "--quiet", "--network=none", f"--build-arg=BASE={local_image(role)}", "--tag", name, str(context)]
            done = subprocess.run(command, env=os.environ | {"DOCKER_BUILDKIT": "0"}, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name}: {done.stdout}\n{done.stderr}"


def remove() -> None:
    """Remove them, by name: what they are made from stays."""
    docker("rmi", *IMAGES.values(), check=False)


def has_page() -> bool:
    """Whether there is a compiler for the page that "/" leads to."""
    return shutil.which("cc") is not None


def _compile(source: Path, library: Path) -> None:
    if has_page():
        options = ["-Wall", "-Werror", "-O2", "-shared", "-fPIC", "-nostdlib", "-fno-stack-protector"]
        subprocess.run(["cc", *options, "-o", str(library), str(source)], check=True)
