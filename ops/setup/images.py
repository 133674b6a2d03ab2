"""Pulls the stack's images, or builds those in images/ on machines that reach Debian's packages but no image registry."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence

from images import images_hash, local_image
from ops.setup.console import ROOT, SetupError, run_slow, say
from ops.setup.debian_base import apt_proxies, ensure_base
from ops.setup.engine import holds_image

_LABEL = "Images"
#: The release of Debian that each is made from: Orthanc's newest is in testing, PostgreSQL's major version is what volumes are in.
_SUITES = {"orthanc": "forky", "postgres": "trixie", "adminer": "forky"}
#: A registry that is not reached often does not refuse but stays silent: this long, then it counts as out of reach.
REGISTRY_TIMEOUT_S = 20

_OTHER_WAYS = """Two ways round it:
  - a registry that this machine reaches: set images.orthanc, images.postgres and images.adminer in the stack file
  - another machine that can build: run `make images` there, then
      docker save {names} | gzip > images.tgz      and here      gunzip -c images.tgz | docker load"""


def ensure_local_images(roles: Iterable[str], docker: Sequence[str] = ("docker",), env: Mapping[str, str] | None = None) -> None:
    """Build the images of these roles that the engine does not hold.

    Args:
        roles: of images.ROLES.
        docker: the client's command, with its options (("docker", "--context", "x")).
        env: its environment; this process's when None. DEBIAN_MIRROR overrides the machine's own mirror.

    Raises:
        SetupError: the engine does not answer, the machine cannot build, or a build failed.
    """
    environment = dict(os.environ if env is None else env)
    names = {role: local_image(role) for role in roles}
    missing = {role: name for role, name in names.items() if not holds_image(name, docker, environment)}
    if not missing:
        say(_LABEL, f"built before: {', '.join(names.values())}")
        return
    _check_engine(docker, environment)
    proxies = apt_proxies()
    hint = _OTHER_WAYS.format(names=" ".join(names.values()))
    for role, name in missing.items():
        base = ensure_base(_SUITES[role], docker, environment, proxies, hint)
        _build(role, name, base=base, docker=docker, env=environment, proxies=proxies)


def registry_answers(image: str, docker: Sequence[str] = ("docker",), timeout_s: float = REGISTRY_TIMEOUT_S) -> bool:
    """Whether a pull of the image gets an answer: it is held already, or its registry says that it has it.

    The manifest is asked for, not the layers. It waits timeout_s at most, and says so first.
    """
    if holds_image(image, docker, os.environ):
        return True
    say(_LABEL, f"asking the registry for {image} (at most {timeout_s:.0f} s)")
    # `manifest inspect` is the client's own request. A pull is the engine's, which may reach what the client does not
    # (a proxy, a registry mirror), so a refusal here is not the last word.
    end = time.monotonic() + timeout_s
    with contextlib.suppress(subprocess.TimeoutExpired):
        asked = subprocess.run(
            [*docker, "manifest", "inspect", image],
            capture_output=True,
            check=False,
            timeout=timeout_s / 2,
            env={**os.environ, "DOCKER_CLI_EXPERIMENTAL": "enabled"},
        )
        if asked.returncode == 0:
            return True
    # A pull that has begun to fetch layers has its answer: it is left to pull(), which goes on where this one stopped.
    with subprocess.Popen([*docker, "pull", image], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as pulling:
        try:
            out, _ = pulling.communicate(timeout=max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            pulling.kill()
            out, _ = pulling.communicate()
            return b"Pulling fs layer" in out or b"Downloading" in out
        return pulling.returncode == 0


def pull(images: Iterable[str], docker: Sequence[str] = ("docker",)) -> None:
    """Pull images that the engine does not hold, one after the other, with progress.

    Raises:
        SetupError: a pull failed.
    """
    for image in images:
        if holds_image(image, docker, os.environ):
            continue
        run_slow(_LABEL, f"pulling {image}", [*docker, "pull", image], hint="Is the name right, and the registry reached?")
        say(_LABEL, f"pulled {image}")


def _check_engine(docker: Sequence[str], env: Mapping[str, str]) -> None:
    answer = subprocess.run([*docker, "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False, env=env)
    if answer.returncode != 0:
        raise SetupError(f"the Docker engine does not answer: {answer.stderr.strip()}")


def _build(role: str, name: str, *, base: str, docker: Sequence[str], env: Mapping[str, str], proxies: Mapping[str, str]) -> None:
    """Build one image, and drop what its first stage left."""
    started = time.monotonic()
    build_env = dict(env)
    # Without the buildx plugin a client of 23 or newer first fails, then falls back; one of 20.10 has no need of it.
    buildx = subprocess.run([*docker, "buildx", "version"], capture_output=True, check=False, env=env)
    if buildx.returncode != 0:
        build_env["DOCKER_BUILDKIT"] = "0"
    # Docker keeps the proxies' build arguments, and no others, out of an image's history.
    arguments = [f"--build-arg={key}={value}" for key, value in proxies.items()]
    run_slow(
        _LABEL,
        f"building {name}",
        [
            *(*docker, "build", "--network=host", "--force-rm", f"--tag={name}", f"--build-arg=BASE={base}"),
            *(f"--build-arg=VERSION=local-{images_hash()}", *arguments),
            *(f"--file={ROOT / 'images' / role / 'Dockerfile'}", str(ROOT / "images")),
        ],
        env=build_env,
        hint="To try again: the same command. What it had built is used again.",
    )
    # The classic builder keeps the first stage as an unnamed image, as large as the result.
    subprocess.run(
        [*docker, "image", "prune", "--force", "--filter", "label=orthanc-stack.stage=build"],
        capture_output=True,
        check=False,
        env=env,
    )
    size = subprocess.run([*docker, "image", "inspect", "--format", "{{.Size}}", name], capture_output=True, text=True, check=True, env=env)
    say(_LABEL, f"built {name}, {int(size.stdout) // 1_000_000} MB, in {time.monotonic() - started:.0f} s")
