"""The beginning of the program: the stack that Pulumi runs, its settings checked against themselves and against the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pulumi
from pulumi.runtime import config as pulumi_config

from configs import names, preflight
from configs.engine import is_loopback, reached_at
from configs.images import ImageChoice, choose
from configs.loader import load, stack_file_name
from configs.problems import SettingsError, report
from configs.promises import unlike_ends
from configs.protection import PROTECTIONS
from configs.settings import AdminerSettings, NodeSettings, StackSettings
from configs.tls import CA_CERTIFICATE, parties_of

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
        engine_host: the host of an engine elsewhere; empty for this machine.
    """

    settings: StackSettings
    prefix: str
    images: ImageChoice
    secret: Callable[[str], pulumi.Output[str]]
    certificates: Mapping[str, Certificate]
    authority: str
    engine_host: str

    def host_of(self, part: NodeSettings | AdminerSettings) -> str:
        """Where a part's ports are reached."""
        return reached_at(self.settings.bind_of(part), self.engine_host)


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
    _warn_of_plain(settings)
    for difference in unlike_ends(settings):
        pulumi.log.warn(difference)
    _warn_of_loopback(settings, engine.host)
    own = names.own(config)
    return Deployment(
        settings,
        prefix,
        choose(settings.images, engine.images),
        pulumi.Config().require_secret,
        _certificates(settings, own, name),
        own.get(CA_CERTIFICATE, ""),
        engine.host,
    )


def _certificates(settings: StackSettings, own: Mapping[str, str], stack: str) -> dict[str, Certificate]:
    if not parties_of(settings):
        return {}
    from configs.certificates import certificates_of, soon_over  # noqa: PLC0415 - for a stack with TLS only

    found = certificates_of(settings, own)
    for party, day in soon_over(found, datetime.now(UTC)).items():
        pulumi.log.warn(f"{party}: its certificate ends on {day}, and then this stack is refused. Renew it: make certs STACK={stack}")
    return found


def _warn_of_loopback(settings: StackSettings, engine: str) -> None:
    """Addresses that are right on the engine's machine alone."""
    parts: list[NodeSettings | AdminerSettings] = [*settings.nodes, *([settings.adminer] if settings.adminer else [])]
    bound = {settings.bind_of(part) for part in parts}
    if engine and (loopback := sorted(filter(is_loopback, bound))):
        pulumi.log.warn(
            f"The engine is at {engine}, and ports are bound to {', '.join(loopback)} there: these addresses open on that machine alone. "
            f"For others, set bind; for yourself, ssh -L <port>:{loopback[0]}:<port> {engine}"
        )


def _warn_of_plain(settings: StackSettings) -> None:
    """What production does without TLS, because its stack file says so."""
    if not settings.is_prod:
        return
    for node in settings.nodes:
        if not settings.tls_of(node):
            pulumi.log.warn(f"{node.name}: tls is false: images, patients' names and passwords go over the network in clear.")
    if settings.index_nodes and not settings.db_tls:
        pulumi.log.warn("indexDb: tls is false: patients' names go between the nodes and PostgreSQL in clear, inside this machine.")
