"""What is claimed of every stack; here without TLS, and of Adminer's image as well."""

import pytest

from tests.stack.claims import TestDeployed, TestSecrets

pytestmark = pytest.mark.slow("a stack like dev on the contract images, beside the one like prod that the fast size has: 60 s")
