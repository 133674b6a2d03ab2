"""What is claimed of every stack."""

from tests.stack.claims import TestDeployed, TestSecrets
