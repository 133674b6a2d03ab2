"""The Docker engine of a stack, asked by Docker's own SDK."""

import contextlib
import functools
from collections.abc import Iterator

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from ops.setup.console import SetupError

#: How long one answer may take: a container that is stopped has a minute to end.
_SECONDS = 300


@functools.cache
def client() -> docker.DockerClient:
    """The engine that DOCKER_HOST and its companions name: ops/setup/prepare.py has put them into the environment.

    Raises:
        SetupError: it does not answer.
    """
    with engine_errors():
        return docker.from_env(timeout=_SECONDS, use_ssh_client=True)


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """What the engine, or the way to it, refuses inside of the block is a SetupError.

    Raises:
        SetupError: the engine refused something, or does not answer.
    """
    try:
        yield
    except (DockerException, RequestException, OSError) as error:
        raise SetupError(f"the Docker engine: {getattr(error, 'explanation', None) or error}") from error
