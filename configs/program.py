"""The beginning of the program: the stack that Pulumi runs, its settings checked against themselves and against the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi.runtime import config as pulumi_config

from configs import names, preflight, starts
from configs.images import ImageChoice, choose
from configs.loader import load, stack_file_name
from configs.problems import SettingsError, report
from configs.protection import PROTECTIONS
from configs.settings import StackSettings
from configs.tls import CA_CERTIFICATE, parties_of
from configs.unseen import check_unseen

if TYPE_CHECKING:
    from configs.certificates import Certificate


@dataclass(frozen=True)
class Deployment:
    """What the program deploys.

    Attributes:
        settings: the stack file.
        prefix: what the physical names of the stack begin with.
        images: the images to run.
        secret: reads one secret of the stack, by its key.
        certificates: the certificates of whoever speaks TLS, by name.
        authority: the certificate of the authority that made them; empty where the stack file holds none.
    """

    settings: StackSettings
    prefix: str
    images: ImageChoice
    secret: Callable[[str], pulumi.Output[str]]
    certificates: Mapping[str, Certificate]
    authority: str


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
    # What the stack's state holds before this run.
    held_volumes: frozenset[str] = frozenset()
    last_outputs: Mapping[str, Any] = {}
    engine = preflight.inspect(settings, prefix, docker)
    if engine is None:
        pulumi.log.warn("There is no docker command: ports are not checked against the engine, nor whether a container is starting still.")
    problems = check_unseen(settings, held_volumes, last_outputs) if engine is None else preflight.check(parts, prefix, engine)
    if problems:
        raise pulumi.RunError(report(problems, stack_file_name(name)))
    if engine and not pulumi.runtime.is_dry_run():
        still = starts.await_starts(starts.limits_of(settings, prefix), docker, pulumi.log.info)
        if still:
            raise pulumi.RunError(still)
    for node in settings.nodes:
        for option in node.unsafe:
            pulumi.log.warn(f"{node.name}: {option} is weakened on purpose (unsafe): {PROTECTIONS[option].against}.")
    _warn_of_plain(settings)
    own = names.own(config)
    return Deployment(
        settings,
        prefix,
        choose(settings.images, engine.images if engine else None, last_outputs.get("images")),
        pulumi.Config().require_secret,
        _certificates(settings, own, name),
        own.get(CA_CERTIFICATE, ""),
    )


def _certificates(settings: StackSettings, own: Mapping[str, str], stack: str) -> dict[str, Certificate]:
    if not parties_of(settings):
        return {}
    from configs.certificates import certificates_of, soon_over  # noqa: PLC0415 - for a stack with TLS only

    found = certificates_of(settings, own)
    for party, day in soon_over(found, datetime.now(UTC)).items():
        pulumi.log.warn(f"{party}: its certificate ends on {day}, and then this stack is refused. Renew it: make certs STACK={stack}")
    return found


def _warn_of_plain(settings: StackSettings) -> None:
    """What production does without TLS, because its stack file says so."""
    if not settings.is_prod:
        return
    for node in settings.nodes:
        if not settings.tls_of(node):
            pulumi.log.warn(f"{node.name}: tls is false: images, patients' names and passwords go over the network in clear.")
    if settings.index_nodes and not settings.db_tls:
        pulumi.log.warn("indexDb: tls is false: patients' names go between the nodes and PostgreSQL in clear, inside this machine.")
