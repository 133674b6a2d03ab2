"""Roles: what a user may ask is refused by the image's own Orthanc, whose "/" leads to another page."""

from tests.stack.test_access import TestUsers, held, users
