"""The contract images: those built here, behind what the registry's demand at their start. README.md has the list."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from images import local_image
from ops.setup.images import ensure_local_images
from tests.stack.engine import docker

_FOLDER = Path(__file__).parent
#: The names of the registry's images.
_NAMES = {"orthanc": "orthancteam/orthanc:26.8.1", "postgres": "library/postgres:17.11", "adminer": "library/adminer:6.0.1"}


@contextlib.contextmanager
def built(mirror: str) -> Iterator[dict[str, str]]:
    """Build them, some layers on what images/ has built, without a network; the `images` block of a stack file that runs them.

    They are named like the registry's on a hospital's mirror, so that the stack file and the policy pack read them alike. No `.invalid` can
    be pulled, and the real names stay what they are: a user's engine may hold the real images.

    Args:
        mirror: the first part of the mirror's folder. The whole of it is this run's own: the names are removed afterwards.
    """
    ensure_local_images(tuple(_NAMES))  # where a registry answers, nothing else has built them
    names = {role: f"contract.invalid/{mirror}-{secrets.token_hex(3)}/{name}" for role, name in _NAMES.items()}
    try:
        for role, name in names.items():
            with tempfile.TemporaryDirectory() as folder:
                context = Path(folder) / role
                shutil.copytree(_FOLDER / role, context)
                if role == "orthanc":
                    _compile(context / "page.c", context / "page.so")
                # What does not change is in the builder's cache: a second build takes a second.
                options = ["--quiet", "--network=none", f"--build-arg=BASE={local_image(role)}", "--tag", name]
                environment = os.environ | {"DOCKER_BUILDKIT": "0"}
                done = subprocess.run(
                    ["docker", "build", *options, str(context)], env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{name}: {done.stdout}\n{done.stderr}"
        yield {"source": "registry", **names}
    finally:
        docker("rmi", *names.values(), check=False)


def has_page() -> bool:
    """Whether there is a compiler for the page that "/" leads to."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def _compile(source: Path, library: Path) -> None:
    if has_page():
        options = ["-Wall", "-Werror", "-O2", "-shared", "-fPIC", "-nostdlib", "-fno-stack-protector"]
        subprocess.run(["cc", *options, "-o", str(library), str(source)], check=True)
