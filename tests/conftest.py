"""Fixtures shared by all tests; shapes written in the package's annotations are checked while the tests run."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 - named by the hook below

install_import_hook("diffux", "tests.typechecker.check")


@pytest.fixture
def x64():
    """Float64 for the length of a test: closed forms are compared to rounding."""
    with jax.enable_x64(True):
        yield
