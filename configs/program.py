"""The beginning of the program: the stack that Pulumi runs, its settings checked against themselves and against the machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pulumi
from pulumi.runtime import config as pulumi_config

from configs import names, preflight
from configs.images import ImageChoice, choose
from configs.loader import load, stack_file_name
from configs.problems import SettingsError, report
from configs.protection import PROTECTIONS
from configs.settings import StackSettings


@dataclass(frozen=True)
class Deployment:
    """What the program deploys.

    Attributes:
        settings: the stack file.
        prefix: what the physical names of the stack begin with.
        images: the images to run.
        secret: reads one secret of the stack, by its key.
    """

    settings: StackSettings
    prefix: str
    images: ImageChoice
    secret: Callable[[str], pulumi.Output[str]]


def begin() -> Deployment:
    """Read the stack's settings.

    Raises:
        pulumi.RunError: the stack file is refused; Pulumi prints its text without a traceback, and no resource is touched.
    """
    name = pulumi.get_stack()
    prefix = names.prefix(name, pulumi.get_project())
    # pulumi.Config reads keys that it is told; only the whole configuration shows a key that is misspelt.
    config = pulumi_config.CONFIG.get()
    docker = preflight.docker_command(config)
    try:
        settings, parts = load(config, filter(pulumi_config.is_config_secret, config), name)
    except SettingsError as error:
        raise pulumi.RunError(str(error)) from None
    engine = preflight.inspect(settings, prefix, docker)
    if engine is None:
        pulumi.log.warn("There is no docker command: ports and existing volumes are not checked against the engine.")
        engine = preflight.Engine()
    elif problems := preflight.check(parts, prefix, engine):
        raise pulumi.RunError(report(problems, stack_file_name(name)))
    for node in settings.nodes:
        for option in node.unsafe:
            pulumi.log.warn(f"{node.name}: {option} is weakened on purpose (unsafe): {PROTECTIONS[option].against}.")
    return Deployment(settings, prefix, choose(settings.images, engine.images), pulumi.Config().require_secret)
