"""Why each container is replaced: what of it changes, and which other part of the stack is behind that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ops.preview.files import Because, files_of
from ops.preview.model import Code, Fate, Reason, SecretFile, Words, listed, say
from ops.preview.parts import Change, role
from ops.preview.sides import IMAGE, NETWORK, VOLUME
from ops.preview.steps import Step

_IMAGE_OF: Final[Mapping[str, str]] = {
    "node": "orthanc",
    "forwarder": "orthanc",
    "db": "postgres",
    "db-roles": "postgres",
    "adminer": "adminer",
}


def reasons(change: Change, secrets: Sequence[SecretFile]) -> tuple[Reason, ...]:
    """The reasons of each container that is replaced, by its name.

    Args:
        change: the change.
        secrets: the containers whose files change without a public reason.
    """
    hidden = {file.container: file.secrets for file in secrets}
    found = []
    for name, step in sorted(change.containers.items()):
        if change.fate(name) is Fate.REPLACED:
            because = list(dict.fromkeys(_of(change, name, step, hidden.get(name, ()))))
            parts = sorted({part for each in because for part in each.parts})
            found.append(Reason(name, tuple(each.words for each in because), tuple(parts)))
    return tuple(found)


def _of(change: Change, name: str, step: Step, secrets: Sequence[str]) -> Iterator[Because]:
    causes = set(step.causes) or change.differing(step)
    kind = role(step)
    if "#initerror" in causes:
        yield Because(say("its last start failed"))
        # What the provider had not read then is no change.
        causes -= {"#initerror", "entrypoints", "command", "networkDatas"}
        if not causes:
            return
    if "uploads" in causes:
        yield from files_of(change, name, kind) or [Because(_secret(secrets))]
    if "ports" in causes:
        yield Because(say("it is published elsewhere"))
    if "image" in causes:
        yield _image(change, kind)
    if "networksAdvanced" in causes:
        yield from _networks(change, step)
    if "volumes" in causes:
        replaced = sorted(volume.name for volume in change.of_type(VOLUME) if volume.op != "create")
        yield Because(say("its volume is replaced: ", listed(replaced)) if replaced else say("its volumes change"))
    if "command" in causes and kind == "db":
        yield Because(say("PostgreSQL is started with other settings"))
    if causes & {"cpuPeriod", "cpuQuota"}:
        yield Because(say("its ", Code("cpus"), " change"))
    if "shmSize" in causes:
        yield Because(say("its ", Code("memory"), " changes, and with it its ", Code("/dev/shm")))
    told = {"uploads", "ports", "image", "networksAdvanced", "volumes", "cpuPeriod", "cpuQuota", "shmSize"}
    told |= {"command"} if kind == "db" else set()
    for key in sorted(causes - told):
        yield Because(say("Docker's ", Code(key), " changes"))
    if not causes:
        yield Because(say("Pulumi does not say why"))


def _secret(secrets: Sequence[str]) -> Words:
    if not secrets:
        return say("one of its files changes, and Pulumi shows none of them")
    return say("a secret changes: ", "" if len(secrets) == 1 else "one of ", listed(secrets))


def _image(change: Change, kind: str) -> Because:
    wanted = _IMAGE_OF.get(kind, "")
    if any(step.name == f"images-{wanted}" for step in change.of_type(IMAGE)):
        return Because(say("it runs the image ", Code(f"images.{wanted}"), ", which changes"))
    return Because(say("its image changes"))


def _networks(change: Change, step: Step) -> Iterator[Because]:
    old, new = (_names(change, state.inputs if state else {}) for state in (step.old, step.new))
    anew = {change.network(str(network.state.inputs.get("name", ""))) for network in change.of_type(NETWORK) if network.op == "replace"}
    told = False
    for network in sorted({*old, *new}):
        if (network in old) == (network in new) and network not in anew:
            continue
        told = True
        verb = "is put on" if network not in old else "leaves" if network not in new else "is on"
        yield Because(say(f"it {verb} the network ", Code(network), ", which is made anew" if network in anew else ""))
    if not told:
        yield Because(say("its networks change"))


def _names(change: Change, inputs: Mapping[str, Any]) -> set[str]:
    found = inputs.get("networksAdvanced")
    return {change.network(str(each.get("name", ""))) for each in found if isinstance(each, Mapping)} if isinstance(found, list) else set()
