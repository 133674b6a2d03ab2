"""The beginning of the program: the stack that Pulumi runs, its settings checked against themselves and against the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pulumi
from pulumi.runtime import config as pulumi_config

from components.ownership import Ownership, owner_of
from configs import names, preflight, starts
from configs.engine import is_loopback, reached_at
from configs.held import Held, held_of
from configs.images import ImageChoice, choose
from configs.loader import load, stack_file_name
from configs.problems import SettingsError, report
from configs.promises import unlike_ends
from configs.protection import PROTECTIONS
from configs.settings import AdminerSettings, NodeSettings, StackSettings
from configs.tls import CA_CERTIFICATE, parties_of
from configs.unseen import check_unseen

if TYPE_CHECKING:
    from configs.certificates import Certificate

#: How often, and with which pauses, the program tries to read its stack's state.
_READ_ATTEMPTS = 20
_READ_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Deployment:
    """What the program deploys.

    Attributes:
        settings: the stack file.
        ownership: whose everything is that it makes.
        volume_of: the name of the data volume of a node, or of the database.
        keeps_data: whether the data volumes are protected, and stay when the stack goes.
        roles_again: what tells the container that makes the roles to run again, where it has not ended well.
        images: the images to run.
        secret: reads one secret of the stack, by its key.
        certificates: the certificates of whoever speaks TLS, by name.
        authority: the certificate of the authority that made them; empty where the stack file holds none.
        engine_host: the host of an engine elsewhere; empty for this machine.
    """

    settings: StackSettings
    ownership: Ownership
    volume_of: Callable[[str], str]
    keeps_data: bool
    roles_again: str
    images: ImageChoice
    secret: Callable[[str], pulumi.Output[str]]
    certificates: Mapping[str, Certificate]
    authority: str
    engine_host: str

    def keeps(self, part: str) -> bool:
        """Whether the data volume of a node, or of the database, is protected, and stays when the stack goes: also what is adopted."""
        return self.keeps_data or self.volume_of(part) in self.settings.adopt

    def host_of(self, part: NodeSettings | AdminerSettings) -> str:
        """Where a part's ports are reached."""
        return reached_at(self.settings.bind_of(part), self.engine_host)


def begin() -> Deployment:
    """Read the stack's settings.

    Raises:
        pulumi.RunError: the stack file is refused; Pulumi prints its text without a traceback, and no resource is touched.
    """
    name = pulumi.get_stack()
    # pulumi.Config reads keys that it is told; only the whole configuration shows a key that is misspelt.
    config = pulumi_config.CONFIG.get()
    docker = preflight.docker_command(config)
    try:
        settings, parts = load(config, filter(pulumi_config.is_config_secret, config), name)
    except SettingsError as error:
        raise pulumi.RunError(str(error)) from None
    held = _read_state()
    stack = preflight.Stack(
        names.prefix(name, pulumi.get_project()),
        names.first_prefix(name, pulumi.get_project()),
        held,
        frozenset(settings.adopt),
    )
    engine = preflight.inspect(settings, stack, docker)
    if engine is None:
        pulumi.log.warn("There is no docker command: ports are not checked against the engine, nor whether a container is starting still.")
    problems = check_unseen(settings, held.volumes, held.outputs) if engine is None else preflight.check(parts, stack, engine)
    if problems:
        raise pulumi.RunError(report(problems, stack_file_name(name)))
    if engine and not pulumi.runtime.is_dry_run():
        still = starts.await_starts(starts.limits_of(settings, stack.prefix), docker, pulumi.log.info)
        if still:
            raise pulumi.RunError(still)
    for node in settings.nodes:
        for option in node.unsafe:
            pulumi.log.warn(f"{node.name}: {option} is weakened on purpose (unsafe): {PROTECTIONS[option].against}.")
    _warn_of_plain(settings)
    keeps_data = settings.is_prod or (held.keeps_data and not settings.release_data)
    _warn_of_release(settings, held)
    for difference in unlike_ends(settings):
        pulumi.log.warn(difference)
    host = engine.host if engine else ""
    _warn_of_loopback(settings, host)
    own = names.own(config)
    return Deployment(
        settings,
        owner_of(stack.prefix, held.owner, keep=keeps_data),
        stack.volume_of,
        keeps_data,
        engine.again if engine else "",
        choose(settings.images, engine.images if engine else None, held.outputs.get("images")),
        pulumi.Config().require_secret,
        _certificates(settings, own, name),
        own.get(CA_CERTIFICATE, ""),
        host,
    )


def _read_state() -> Held:
    """What the stack's state holds before this run. The engine's own function: a StackReference would show outputs alone."""
    stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    for attempt in range(_READ_ATTEMPTS):
        try:
            answer = pulumi.runtime.invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": stack})
        except Exception as error:
            # A backend of files writes the state and a small file beside it, and the second not in one step (gocloud.dev's fileblob,
            # attrs.go): whoever reads while the engine writes its first resources may meet an empty one.
            if attempt == _READ_ATTEMPTS - 1:
                raise pulumi.RunError(f"The state of {stack} cannot be read, and nothing was touched: {error}") from None
            time.sleep(_READ_PAUSE_SECONDS)
        else:
            return held_of(answer.value["outputs"])
    raise AssertionError


def _warn_of_release(settings: StackSettings, held: Held) -> None:
    """What becomes of the data of a stack that was prod, and is no longer."""
    if settings.is_prod or not held.keeps_data:
        return
    volumes = ", ".join(sorted(held.volumes.values()))
    if settings.release_data:
        pulumi.log.warn(
            "releaseData: the data volumes are no longer protected. After this run, `pulumi destroy`, and a node that is removed from the "
            f"stack file, delete patients' images: {volumes}."
        )
    else:
        pulumi.log.warn(
            f"environment is dev, and the stack was prod: its data volumes stay protected ({volumes}). releaseData: true in the stack file "
            "gives them up."
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
