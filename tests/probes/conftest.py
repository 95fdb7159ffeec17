"""A network that compiles in a moment, in the place of the U-Net."""

from tests.small import tiny  # noqa: F401 - a fixture
