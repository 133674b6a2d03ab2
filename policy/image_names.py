"""What an image's name says: no floating tags, and no version with known holes.

The same name is judged in two places: where it is pulled (RemoteImage) and where a container is told a name. A container that is told an
image's ID, as these components do, is judged by the RemoteImage that the ID comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from configs.names import PROJECT
from policy.resources import IMAGE, Resource

#: An image that is built from images/: the tag holds a hash of what it is built from, and cannot float. It has no version either, but
#: those of Debian's packages, whose oldest are in the images' Dockerfiles.
_BUILT_HERE = re.compile(rf"{PROJECT}/[a-z]+:local-[0-9a-f]{{12}}")

_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)(?![\w.])")
#: A date or a hash at a tag's end: one build, and no other.
_ONE_BUILD = re.compile(r"(?:^|[-_.])(?:\d{8}|[0-9a-f]{12,64})$")

#: orthancteam/orthanc counts by the calendar (26.8.1), Orthanc itself does not (1.13.0).
_CALENDAR_SINCE = 20


@dataclass(frozen=True)
class ImageName:
    """An image's name, in its parts.

    Attributes:
        text: the whole name.
        repository: without tag and digest.
        tag: empty where there is none.
        digest: empty where there is none.
    """

    text: str
    repository: str
    tag: str
    digest: str

    @classmethod
    def of(cls, text: str) -> ImageName:
        """Take a name apart. A colon before a slash belongs to the registry's port."""
        named, _, digest = text.partition("@")
        head, slash, last = named.rpartition("/")
        last, _, tag = last.partition(":")
        return cls(text, f"{head}{slash}{last}", tag, digest)

    @property
    def built_here(self) -> bool:
        """Whether images/ builds it."""
        return _BUILT_HERE.fullmatch(self.text) is not None

    @property
    def product(self) -> Product | None:
        """What it is an image of, as far as there is a floor for it; the same on any mirror."""
        return _PRODUCTS.get(self.repository.rpartition("/")[2])

    @property
    def version(self) -> tuple[int, ...]:
        """The version that the tag begins with; empty where it does not, or where something follows that is not a variant (18rc1)."""
        found = _VERSION.match(self.tag)
        return tuple(map(int, found[1].split("."))) if found else ()

    @property
    def floats(self) -> bool:
        """Whether the name can mean another image tomorrow."""
        if self.digest or _ONE_BUILD.search(self.tag):
            return False
        return len(self.version) < (self.product.parts if self.product else 2)


@dataclass(frozen=True)
class Product:
    """A program with a floor.

    Attributes:
        title: its name.
        parts: how many numbers a whole version of it has.
        floors: the oldest version without known holes, by the first number of the version that it holds for; it also holds for
            later ones, up to the next floor.
        because: what was mended in the floors.
    """

    title: str
    parts: int
    floors: Mapping[int, tuple[int, ...]]
    because: str

    def floor_for(self, version: tuple[int, ...]) -> tuple[int, ...]:
        """The floor that a version is held to: the lowest of all where it is older than each."""
        begun = [first for first in self.floors if first <= version[0]]
        return self.floors[max(begun, default=min(self.floors))]


_ORTHANC = Product(
    "Orthanc",
    3,
    {1: (1, 13, 0), _CALENDAR_SINCE: (26, 8, 1)},
    "CVE-2026-5437 to 5445 (memory errors and zip bombs, 1.12.11) and CVE-2026-10528 (deep sequences, 1.13.0)",
)
_ADMINER = Product("Adminer", 3, {5: (5, 5, 1)}, "GHSA-q4f2-39gr-45jh (5.4.2) and GHSA-fr74-9mf9-gf44 (5.5.1)")
_POSTGRESQL = Product(
    "PostgreSQL",
    2,
    {14: (14, 23), 15: (15, 18), 16: (16, 14), 17: (17, 10), 18: (18, 4)},
    "CVE-2026-2005 and 2006 (February 2026) and CVE-2026-6473 (memory errors, May 2026)",
)
#: By the last part of an image's repository.
_PRODUCTS: Mapping[str, Product] = {
    "orthanc": _ORTHANC,
    "orthanc-plugins": _ORTHANC,
    "orthanc-python": _ORTHANC,
    "adminer": _ADMINER,
    "postgres": _POSTGRESQL,
    "postgresql": _POSTGRESQL,
}
PRODUCTS = (_ORTHANC, _ADMINER, _POSTGRESQL)


def image_of(resource: Resource) -> ImageName | None:
    """The name that a resource says of an image; None where it says an ID, or nothing that is known."""
    text = resource.text("name" if resource.type == IMAGE else "image")
    return ImageName.of(text) if text and not text.startswith("sha256:") else None


def dotted(version: tuple[int, ...]) -> str:
    """A version as it is written."""
    return ".".join(map(str, version))


def no_floating_image_tag(resource: Resource) -> Iterator[str]:
    """Refuse a name that can mean another image tomorrow."""
    image = image_of(resource)
    if image is None or not image.floats:
        return
    wrong = f"has the tag {image.tag!r}, which moves on with each release" if image.tag else "has no tag, which means 'latest'"
    yield f"{resource}: the image {image.text} {wrong}. Name an exact version ({_example(image)}), or add its digest (@sha256:…)."


def version_floor(resource: Resource) -> Iterator[str]:
    """Refuse a version with holes that are known and mended."""
    image = image_of(resource)
    if image is None or image.product is None or image.built_here or image.floats:
        return  # what floats has no version to compare, and is refused for that
    product, version = image.product, image.version
    if not version:
        yield (
            f"{resource}: the image {image.text} says no version of {product.title}, so that nobody can see whether it has known holes. "
            f"Write the version before the digest ({_example(image)}@sha256:…)."
        )
    elif version < (floor := product.floor_for(version)):
        yield (
            f"{resource}: the image {image.text} is older than {product.title} {dotted(floor)}, which mends {product.because}. "
            f"Take {image.repository}:{dotted(floor)} or newer."
        )


def _example(image: ImageName) -> str:
    """How a name would be right."""
    product = image.product
    if product is None:
        return f"{image.repository}:1.2.3"
    return f"{image.repository}:{dotted(product.floor_for(image.version or (max(product.floors),)))}"
