"""A network that compiles in a moment, in the place of the U-Net."""

from tests.small import config, tiny  # noqa: F401 - fixtures
