"""Sees to it that the engine can run a stack's images: held, pulled, or built here from images/, where no registry is reached."""

import os
import subprocess
import time
from collections.abc import Iterable

from configs.settings import ImageSettings, StackSettings
from images import RESTIC, ImageChoice, candidates, choose, local_image, local_roles
from ops.setup.console import ROOT, SetupError, run_slow, say, without_secrets
from ops.setup.debian_base import apt_proxies, ensure_base
from ops.setup.engine import docker, holds

_LABEL = "Images"
#: The release of Debian that each is made from: Orthanc's newest is in testing, PostgreSQL's major version is what volumes are in.
_SUITES = {"orthanc": "forky", "postgres": "trixie", "postgres-18": "forky", "adminer": "forky", RESTIC: "trixie"}
#: A registry that is not reached often does not refuse but stays silent: this long, then it counts as out of reach.
_REGISTRY_SECONDS = 20

_OTHER_WAYS = """Two ways round it:
  - a registry that this machine reaches: set images.orthanc, images.postgres and images.adminer in the stack file
  - another machine that can build: run `./orthanc-stack images STACK` there, then
      docker save {names} | gzip > images.tgz      and here      gunzip -c images.tgz | docker load"""


def ensure_images(settings: StackSettings) -> None:
    """Do what `images.source` says. A SetupError where images can neither be pulled nor built.

    The program chooses by the same rule: with `auto` it runs the locally built images where the engine holds all of them.
    """
    images = settings.images
    wanted = [images.orthanc, *([images.postgres] if settings.index_nodes else []), *([images.adminer] if settings.adminer else [])]
    if images.source == "registry":
        say(_LABEL, f"from their registries, which Pulumi pulls: {', '.join(wanted)}")
    elif holds(*candidates(settings.index_db.major_version)):
        say(_LABEL, "built here before, from Debian's packages")
    elif images.source == "auto" and holds(*wanted):
        say(_LABEL, f"pulled before: {', '.join(wanted)}")
    elif images.source == "auto" and _registry_answers(wanted[0]):
        for image in wanted:
            pull(image)
    else:
        if images.source == "auto":
            say(_LABEL, "no registry answers: building them here, from Debian's packages")
        ensure_local_images(local_roles(settings.index_db.major_version).values())


def chosen(settings: StackSettings) -> ImageChoice:
    """The images that a deployment would run now, by the program's own rule."""
    major = settings.index_db.major_version
    held = candidates(major) if settings.images.source == "auto" and holds(*candidates(major)) else ()
    return choose(settings.images, held, major)


def ensure_postgres(settings: StackSettings, postgres: str, new: int) -> str:
    """The name of the image of another major version of PostgreSQL that the engine holds: from where the stack's images are from now.

    Args:
        settings: those of the stack as it runs.
        postgres: the registry's image of the new version.
        new: the new version.
    """
    if chosen(settings).source == "registry":
        pull(postgres)
        return postgres
    folders = local_roles(new)
    ensure_local_images(folders.values())
    return local_image(folders["postgres"])


def ensure_restic(images: ImageSettings) -> str:
    """The name of the image of restic that the engine holds, pulled or built by the same rule; "auto" prefers one that was built here."""
    local = local_image(RESTIC)
    if images.source == "registry" or (images.source == "auto" and not holds(local) and _registry_answers(images.restic)):
        pull(images.restic)
        return images.restic
    if not holds(local):
        ensure_local_images([RESTIC])
    return local


def ensure_local_images(roles: Iterable[str]) -> None:
    """Build the images of these roles that the engine does not hold; or a SetupError. DEBIAN_MIRROR overrides the machine's own mirror."""
    names = {role: local_image(role) for role in roles}
    hint = _OTHER_WAYS.format(names=" ".join(names.values()))
    for role, name in names.items():
        if holds(name):
            say(_LABEL, f"built before: {name}")
        else:
            proxies = apt_proxies()
            _build(role, name, ensure_base(_SUITES[role], proxies, hint), proxies)


def pull(image: str) -> None:
    """Pull an image that the engine does not hold."""
    if not holds(image):
        run_slow(_LABEL, f"pulling {image}", ["docker", "pull", image], hint="Is the name right, and the registry reached?")
        say(_LABEL, f"pulled {image}")


def _registry_answers(image: str) -> bool:
    """Whether a pull of the image gets an answer."""
    if holds(image):
        return True
    say(_LABEL, f"asking the registry for {image} (at most {_REGISTRY_SECONDS} s)")
    with subprocess.Popen(["docker", "pull", image], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as pulling:
        try:
            pulling.communicate(timeout=_REGISTRY_SECONDS)
        except subprocess.TimeoutExpired:
            pulling.kill()
            out, _ = pulling.communicate()
            # One that has begun to fetch layers has its answer. The next pull goes on where it stopped.
            return b"Pulling fs layer" in out or b"Downloading" in out
        return pulling.returncode == 0


def _build(role: str, name: str, base: str, proxies: dict[str, str]) -> None:
    """Build one image, and drop what its first stage left."""
    started = time.monotonic()
    env = without_secrets(os.environ) | proxies
    # Without the buildx plugin a client of 23 or newer first fails, then falls back; one of 20.10 has no need of it.
    if docker("buildx", "version").returncode != 0:
        env["DOCKER_BUILDKIT"] = "0"
    # Docker keeps the proxies' build arguments, and no others, out of an image's history.
    # Only their names are on the command line: a proxy's address may hold a password, and docker takes the values from the environment.
    arguments = (f"BASE={base}", f"VERSION={name.rpartition(':')[2]}", *proxies)
    options = ["--network=host", "--force-rm", f"--tag={name}", *(f"--build-arg={argument}" for argument in arguments)]
    command = ["docker", "build", *options, f"--file={ROOT / 'images' / role / 'Dockerfile'}", str(ROOT / "images")]
    run_slow(_LABEL, f"building {name}", command, env=env, hint="To try again: the same command. What it had built is used again.")
    # The classic builder keeps the first stage as an unnamed image, as large as the result.
    docker("image", "prune", "--force", "--filter", "label=orthanc-stack.stage=build")
    if not holds(name):
        raise SetupError(f"{name} was built, but the engine does not hold it. Does docker build on another engine (docker buildx ls)?")
    say(_LABEL, f"built {name} in {time.monotonic() - started:.0f} s")
