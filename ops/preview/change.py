"""A change of a stack: Pulumi's steps by what they are of, and the settings before and after."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from configs import names
from ops.preview.events import Preview, State, Step
from ops.preview.settings import Plain, settings_after, settings_before

NODE: Final = "orthanc-stack:index:OrthancNode"
FORWARDER: Final = "orthanc-stack:index:Forwarder"
DATABASE: Final = "orthanc-stack:index:OrthancIndexDb"
CONTAINER: Final = "docker:index/container:Container"
IMAGE: Final = "docker:index/remoteImage:RemoteImage"
VOLUME: Final = "docker:index/volume:Volume"


class Fate(StrEnum):
    """What becomes of a container, a volume, a link."""

    ADDED = "added"
    CHANGED = "changed"
    REPLACED = "replaced"
    REMOVED = "removed"


_FATES: Final = {"create": Fate.ADDED, "update": Fate.CHANGED, "replace": Fate.REPLACED, "delete": Fate.REMOVED}
#: Those that end what was there.
STOPS: Final = (Fate.REPLACED, Fate.REMOVED)


def fate_of(step: Step) -> Fate | None:
    """What becomes of a resource; None where it stays, or where Pulumi's word for it is not known here."""
    return _FATES.get(step.op)


def label_of(state: State, label: str) -> str:
    """The value of one of this project's labels on a resource of Docker's; empty without it."""
    found = state.inputs.get("labels")
    labels = found if isinstance(found, list) else []
    return next((str(each.get("value")) for each in labels if isinstance(each, Mapping) and each.get("label") == label), "")


def host_name(step: Step) -> str:
    """A container's name in the stack, its host name among the others: ``client``, ``client-forwarder``, ``db``."""
    return str(step.state.inputs.get("hostname") or step.state.inputs.get("name") or step.name)


def mapping(value: Any) -> Mapping[str, Any]:
    """A value where it is a mapping; an empty one where it is missing, or not known yet."""
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class Change:
    """A preview, by its parts."""

    preview: Preview

    @cached_property
    def old(self) -> Plain | None:
        """The settings of the last deployment; None where it kept none."""
        return settings_before(self.preview)

    @cached_property
    def new(self) -> Plain | None:
        """The settings in the stack file; None where it is refused."""
        return settings_after(self.preview)

    @cached_property
    def containers(self) -> Mapping[str, Step]:
        """The step of each container, by its name in the stack."""
        return {host_name(step): step for step in self.preview.steps if step.type == CONTAINER}

    @cached_property
    def nodes(self) -> Mapping[str, Step]:
        """The steps of the nodes' containers, by name."""
        return {name: step for name, step in sorted(self.containers.items()) if label_of(step.state, names.LABEL_ROLE) == "node"}

    @cached_property
    def _components(self) -> Mapping[str, Step]:
        return {step.urn: step for step in self.preview.steps}

    def component(self, step: Step) -> Step | None:
        """The step of the component that a resource is part of."""
        return self._components.get(step.state.parent)

    def of_type(self, type_: str) -> Iterator[Step]:
        """The steps of a type that change something."""
        return (step for step in self.preview.steps if step.type == type_ and step.changes)

    def fate(self, container: str) -> Fate | None:
        """What becomes of a container."""
        step = self.containers.get(container)
        return fate_of(step) if step else None

    def aets(self, *, after: bool) -> Mapping[str, str]:
        """The AE titles of the nodes before or after, by the nodes' names."""
        steps = {step.name: step.new if after else step.old for step in self.preview.steps if step.type == NODE}
        made = {name: mapping(state.inputs.get("configuration")).get("DicomAet") for name, state in steps.items() if state}
        said = {str(node.get("name")): node for node in (self.new or {}).get("nodes") or ()} if after else self.preview.outputs.get("nodes")
        found = {**{name: mapping(node).get("aet") for name, node in mapping(said).items()}, **made}
        return {name: str(aet) for name, aet in sorted(found.items()) if aet}

    def databases(self, *, after: bool) -> Mapping[str, str]:
        """The databases in PostgreSQL before or after, by the nodes whose indexes they hold."""
        step = next((step for step in self.preview.steps if step.type == DATABASE), None)
        if step is None:  # the preview failed before it came to it
            return mapping(mapping(self.preview.outputs.get("indexDb")).get("databases"))
        state = step.new if after else step.old
        return mapping(state.inputs.get("databases")) if state else {}
