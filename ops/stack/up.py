"""`up`: from whatever is there to a stack that runs and was checked."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from components.engine import host_and_port
from configs.held import VOLUME
from configs.loader import load_stack_file
from configs.names import FILLED, INDEX_VOLUME, LABEL_ROLE
from configs.problems import visible
from configs.secrets import DB_PASSWORD
from configs.settings import StackSettings
from ops.backup.backup import backup
from ops.setup.console import SetupError, say
from ops.setup.images import ensure_images
from ops.setup.prepare import prepare, stack_config, stack_file
from ops.setup.state import on_runner
from ops.stack.engine import (
    ROLE_ONE_SHOT,
    Container,
    amiss,
    client,
    containers_of,
    engine_errors,
    labels_of,
    list_containers,
    repeating,
)
from ops.stack.interrupted import put_right
from ops.stack.schema import moves
from ops.stack.secrets import ensure_certificates, ensure_secrets, missing_keys, require_certificates, require_secrets
from ops.stack.stack import POLICIES, Stack
from ops.stack.terminal import table
from ops.stack.verify import report, verify

_WATCH_SECONDS: Final = 2.0
#: One may be an accident: a database that was not there yet.
_RESTARTS: Final = 2
_LOG_LINES: Final = 12
_LINE_LENGTH: Final = 300


def up(name: str, plan: Path | None = None, *, saves: bool = True) -> int:
    """Deploy a stack and check it; the exit status. With Pulumi's plan, nothing is done but what it says.

    In a pipeline (with a plan, or on a runner) no secret, certificate or stack is made: a missing one is an error. With `saves`, the stack
    is backed up before a new image moves the schema of its databases.
    """
    # Before anything is installed, built or pulled.
    settings = load_stack_file(name)
    stack = Stack(name, prepare(name))
    refuse_half_restored(stack)
    existed = stack.exists()
    if existed and plan is not None:
        refuse_unplanned(stack, plan)
    if existed:
        refuse_switched(stack, settings)
        refuse_removed(stack, settings)
        if settings.index_nodes:
            refuse_lost_password(stack, settings)
    _complete(stack, settings, existed=existed, may_make=plan is None and not on_runner())
    ensure_images(settings)
    refresh = existed and plan is None and _needs_refresh(stack)
    if existed:
        save_before_move(stack, settings, saves=saves)
    print(flush=True)
    # Without --suppress-outputs the topology's graph would scroll the errors away; without --non-interactive, Pulumi draws on a terminal
    # over what watching() prints.
    options = [*(["--refresh", "--run-program"] if refresh else []), *(["--plan", str(plan)] if plan else [])]
    with watching(stack):
        status = stack.run("up", "--yes", "--skip-preview", "--non-interactive", "--suppress-outputs", *POLICIES, *options)
    if status != 0:
        hint = f" (not as planned? It has changed since: `./orthanc-stack preview {name} --save-plan`)" if plan else ""
        raise stack.failure(f"`up` of {name} did not end well{hint}", status)
    outputs = stack.outputs(show_secrets=True)
    status = report(verify(stack, outputs))
    print()
    summarize(outputs, name)
    return status


def _complete(stack: Stack, settings: StackSettings, *, existed: bool, may_make: bool) -> None:
    """Make what the stack file lacks: the stack in the backend, secrets, certificates; in a pipeline, refuse."""
    if may_make:
        if not existed:
            stack.create()
        ensure_secrets(stack, settings)
        ensure_certificates(stack, settings)
        return
    if not existed:
        raise SetupError(
            f"there is no stack {stack.name} in {stack.tools.state.origin}, and a pipeline makes none. At a desk: "
            f"`./orthanc-stack secrets {stack.name}` makes it with its secrets; then commit its stack file."
        )
    require_secrets(stack, settings)
    require_certificates(stack, settings)


def _needs_refresh(stack: Stack) -> bool:
    """Whether Pulumi has to look at each container before it changes any: only where the stack does not run as it was deployed."""
    if stack.pending:
        put_right(stack)
        return False  # that was a refresh
    start_stopped(containers_of(stack))
    lost = amiss(stack.resources, containers_of(stack))
    if lost:
        say("Refresh", f"{_listed(lost)}: Pulumi looks at each container before it changes any")
    return bool(lost)


def _listed(lost: Mapping[str, str]) -> str:
    return ", ".join(f"{name} is {what}" for name, what in lost.items())


def refuse_half_restored(stack: Stack) -> None:
    """Refuse where a restore has begun and not ended: nodes would start with a part of their data, and the restore could not go on."""
    with engine_errors():
        found = client().volumes.list(filters={"name": stack.restore_mark})
    if any(one.name == stack.restore_mark for one in found):
        raise SetupError(
            f"a restore of {stack.name} has begun, and has not ended: `./orthanc-stack restore {stack.name}` goes on with it. "
            f"To give it up, remove the stack's volumes, and its mark: docker volume rm {stack.restore_mark}"
        )


def save_before_move(stack: Stack, settings: StackSettings, *, saves: bool) -> None:
    """Back a stack up before a new image moves the schema of its databases; refuse where the image is too old for them."""
    again = f"./orthanc-stack up {stack.name} --no-backup"
    try:
        found = moves(stack, settings, may_pull=True)
    except SetupError as error:
        if saves:
            raise SetupError(f"nothing was touched: a new image may move the schema of a database: {error}\nTo go on: {again}") from error
        say("Schema", f"not known: {error}")
        return
    for move in found:
        say("Schema", str(move.words))
    if any(move.back for move in found):
        raise SetupError("nothing was touched: images.orthanc is too old for a database, as said above.")
    if not found or not saves:
        return
    if settings.backup is None:
        raise SetupError(
            f"nothing was touched: a backup comes first, and Pulumi.{stack.short}.yaml says not where to. Add backup.to "
            f"(docs/backup.md); or, without one: {again}"
        )
    try:
        backup(stack.name, sheet=False)
    except SetupError as error:
        raise SetupError(
            f"{error}\nNothing was touched: a backup comes first, of the stack as it is deployed. Without one: {again}"
        ) from error


def refuse_unplanned(stack: Stack, plan: Path) -> None:
    """Refuse a plan where something has to be put right first that it does not say: an earlier run did not end, or a container is amiss."""
    lost = amiss(stack.resources, containers_of(stack))
    # A one-shot that has ended and was pruned since: nothing runs otherwise than planned without it.
    pruned = {str(one["inputs"]["name"]) for one in stack.resources if labels_of(one.get("inputs") or {}).get(LABEL_ROLE) == ROLE_ONE_SHOT}
    lost = {name: what for name, what in lost.items() if not (name in pruned and what == "missing")}
    unfinished = ", ".join(stack.unfinished)
    why = f"an earlier run ended while it was changing {unfinished}" if unfinished else _listed(lost)
    if why:
        raise SetupError(
            f"{why}: the plan {plan.name} knows nothing of that. `./orthanc-stack up {stack.name}` without it puts it right; "
            "then preview anew."
        )


def start_stopped(found: Sequence[Container]) -> bool:
    """Start what was stopped (by `down`, say), the database first; whether there was anything to start.

    Pulumi would replace each: started again, a container is the one that its state knows.
    """
    stopped = [container for container in found if container.state == "exited" and container.role != ROLE_ONE_SHOT]
    for container in sorted(stopped, key=lambda container: container.role != "db"):
        try:
            with engine_errors():
                container.handle.start()
        except SetupError as error:
            # Its port was taken meanwhile, say: Pulumi tells more of it than this.
            say("Start", f"{container.name} cannot be started as it is: {error}")
        else:
            say("Start", f"{container.name}, which was stopped")
    return bool(stopped)


def summarize(outputs: Mapping[str, Any], name: str) -> None:
    """Print where the stack's users find it."""
    nodes = sorted((outputs.get("nodes") or {}).items())
    rows = [(node, at["httpUrl"], at["aet"], host_and_port(at["dicomHost"], at["dicomPort"])) for node, at in nodes]
    table(("node", "web address", "AE title", "DICOM"), rows)
    images = outputs.get("images") or {}
    names = ", ".join(str(images[role]) for role in ("orthanc", "postgres", "adminer") if images.get(role))
    built = "built here from Debian's packages: " if images.get("source") == "local" else ""
    print()
    if outputs.get("adminerUrl"):
        print(f"  Adminer    {outputs['adminerUrl']}")
    print(f"  Images     {built}{names}\n  Passwords  ./orthanc-stack outputs {name} --show-secrets")


def refuse_removed(stack: Stack, settings: StackSettings) -> None:
    """Refuse to remove what a protected volume is for: Pulumi would, without a preview, and only then find that the volume has to stay."""
    wanted = {f"{node.name}-data" for node in settings.nodes}
    for resource in stack.resources:
        name = str(resource.get("urn")).rpartition("::")[2]
        kept = name in wanted or (settings.index_nodes and INDEX_VOLUME.fullmatch(name))
        if resource.get("type") == VOLUME and resource.get("protect") and not kept:
            raise SetupError(
                f"nothing was touched: {name.removesuffix('-data')} is no longer in the stack file, and its data volume "
                f"{resource['outputs']['name']} is protected. Put it back; or, to give it up (the volume stays on the engine):\n"
                f"    eval \"$(./orthanc-stack env {stack.name})\"\n    pulumi state unprotect '{resource['urn']}'"
            )


def refuse_switched(stack: Stack, settings: StackSettings) -> None:
    """Refuse, before any node starts, where the stack file names another volume of the database's than the one in use."""
    held, volume = stack.held(), settings.index_db.volume
    wanted = held.volume_of(volume, stack.prefix)
    if settings.index_nodes and held.index_volume not in ("", wanted) and os.environ.get(FILLED) != wanted:
        raise SetupError(
            f"nothing was touched: indexDb.volume is {volume}, and the database of {stack.name} has its data in {held.index_volume}. "
            f"`./orthanc-stack upgrade-db {stack.name}` goes on with an upgrade that was broken off; with --undo, it goes back. "
            "If you changed indexDb by hand, set it back."
        )


def refuse_lost_password(stack: Stack, settings: StackSettings) -> None:
    """Refuse a stack file without the password of a database that is there: it keeps the one that it was made with."""
    volume = stack.held().volumes.get(f"{settings.index_db.volume}-data", "")
    if not volume or not missing_keys([DB_PASSWORD], stack_config(stack.name, stack.root)):
        return
    with engine_errors():
        # The filter takes a part of a name for it.
        if all(one.name != volume for one in client().volumes.list(filters={"name": volume})):
            return
    raise SetupError(
        f"the volume {volume} holds a database, and {stack_file(stack.name).name} no longer holds its password, {DB_PASSWORD}.\n"
        "Put the stack file back that it was made with (and .pulumi-state/ with it), or set the password that you know:\n"
        f'    eval "$(./orthanc-stack env {stack.name})"\n    pulumi config set --secret {DB_PASSWORD} --stack {stack.name}\n'
        f"or, to begin anew without the images in it: docker volume rm {volume}"
    )


@contextlib.contextmanager
def watching(stack: Stack) -> Iterator[None]:
    """Look at a stack's containers while the block runs, and tell once of each that restarts again and again.

    It will not become healthy; pulumi-docker waits for that until its time is up, and looks at nothing else meanwhile.
    """
    # A container that has been there for a year may have been started again before.
    before, told = {one.id: one.restarts for one in _look(stack.prefix)}, set[str]()

    def look() -> None:
        for one in _look(stack.prefix):
            if one.id not in told and one.restarts - before.get(one.id, 0) >= _RESTARTS:
                told.add(one.id)
                print(_told(one, stack.name), flush=True)

    with repeating(_WATCH_SECONDS, look):
        yield


def _look(prefix: str) -> list[Container]:
    """The stack's containers; none where the engine does not answer: Pulumi says so itself."""
    with contextlib.suppress(SetupError):
        return list_containers(prefix)
    return []


def _told(container: Container, stack: str) -> str:
    how = f", the last time with exit status {container.exit_status}" if container.state == "restarting" else ""
    ends = f"{container.part}: the container {container.name} ends and is started again, {container.restarts} times by now{how}"
    log = ""
    with contextlib.suppress(SetupError), engine_errors():
        log = container.handle.logs(tail=_LOG_LINES).decode(errors="replace")
    lines = [
        # Pulumi's own line may not have ended.
        f"\n{ends}. Its log ends:",
        *(f"    | {visible(line)[:_LINE_LENGTH]}" for line in log.splitlines()),
        "    Waiting will not help: press Ctrl-C (again to end at once), and correct what the log says; then",
        f"    `./orthanc-stack up {stack}`. The whole log: docker logs {container.name}\n",
    ]
    return "\n".join(lines)
