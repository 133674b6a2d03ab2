"""What an image's name says, and the oldest versions that are allowed: judged where an image is pulled, and where a container names it."""

import re
from typing import NamedTuple

from configs.names import PROJECT


class Product(NamedTuple):
    """A program, with the last parts of its images' names, which are the same on any mirror.

    Its floors are the oldest versions without known holes, each by the first number from which on it holds, up to the next one's.
    `because` says what they mend.
    """

    title: str
    images: tuple[str, ...]
    floors: dict[int, tuple[int, ...]]
    because: str


ORTHANC = Product(
    "Orthanc",
    ("orthanc", "orthanc-plugins", "orthanc-python"),
    {1: (1, 13, 0), 20: (26, 8, 1)},  # orthancteam/orthanc counts by the calendar, Orthanc itself does not
    "CVE-2026-5437 to 5445 (memory errors and zip bombs, 1.12.11) and CVE-2026-10528 (deep sequences, 1.13.0)",
)
ADMINER = Product("Adminer", ("adminer",), {5: (5, 5, 1)}, "GHSA-q4f2-39gr-45jh (5.4.2) and GHSA-fr74-9mf9-gf44 (5.5.1)")
POSTGRESQL = Product(
    "PostgreSQL",
    ("postgres", "postgresql"),
    {14: (14, 23), 15: (15, 18), 16: (16, 14), 17: (17, 10), 18: (18, 4)},
    "CVE-2026-2005 and 2006 (February 2026) and CVE-2026-6473 (memory errors, May 2026)",
)
PRODUCTS = (ORTHANC, ADMINER, POSTGRESQL)

#: The version that a tag begins with. Where something follows that is no variant (18rc1), it is none.
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)(?![\w.])")
#: A date or a hash at a tag's end: one build, and no other.
_ONE_BUILD = re.compile(r"(?:^|[-_.])(?:\d{8}|[0-9a-f]{12,64})$")


class ImageName:
    """An image's name. Attributes: itself, its tag, and the product and the version that it says, if it does."""

    def __init__(self, text: str) -> None:
        self.text = text
        named, _, digest = text.partition("@")
        head, slash, last = named.rpartition("/")  # a colon before a slash belongs to the registry's port
        last, _, self.tag = last.partition(":")
        self.product = next((product for product in PRODUCTS if last in product.images), None)
        found = _VERSION.match(self.tag)
        self.version = tuple(map(int, found[1].split("."))) if found else ()
        floors = self.product.floors if self.product else {0: (1, 2, 3)}
        begun = [first for first in floors if not self.version or first <= self.version[0]]
        floor = floors[max(begun, default=min(floors))]
        self.floor = ".".join(map(str, floor))
        self.example = f"{head}{slash}{last}:{self.floor}"  # how the name would be right
        #: Whether it can mean another image tomorrow.
        self.floats = not digest and not _ONE_BUILD.search(self.tag) and len(self.version) < (len(floor) if self.product else 2)
        # Of images/: the tag is a hash of what it is built from, the version is Debian's, whose oldest are in the images' Dockerfiles.
        built_here = re.fullmatch(rf"{PROJECT}/[a-z]+:local-[0-9a-f]{{12}}", text)
        #: Whether it may have holes that are known and mended. What floats has no version to compare, and is refused for that.
        self.outdated = bool(self.product) and not self.floats and self.version < floor and not built_here
