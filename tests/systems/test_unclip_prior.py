"""What unCLIP's prior does to embeddings before it diffuses them; its laws are in test_unclip."""

import numpy as np
import pytest

from diffux.systems import unclip_prior

pytestmark = pytest.mark.usefixtures("quick")


def test_normalizers_are_undone_and_differ():
    z = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    for name, codec in {"scaled(17.2)": 17.2, "root": np.sqrt(6), "standardized(0.5,2.0)": None}.items():
        made = unclip_prior.make("normalizer", name, unclip_prior.NORMALIZERS, features=6)
        np.testing.assert_allclose(made.decode(made.encode(None, z, {}), {}), z, rtol=1e-5, atol=1e-6)
        if codec is not None:
            np.testing.assert_allclose(made.encode(None, z, {}), codec * z, rtol=1e-5)
