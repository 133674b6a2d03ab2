"""Images go through as they were sent, and everything that is replaced stops by itself."""

from tests.stack.test_dicom import TestEveryContainerReplaced, TestImages, replaced
