"""Parity with independent implementations: in the full tier, and skipped where they are not installed."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if "/peers/" in str(item.path):
            item.add_marker(pytest.mark.peers)
            item.add_marker(pytest.mark.full)
