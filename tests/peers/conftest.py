"""Parity with independent implementations: in the full tier and the slow one, and skipped where they are not installed."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if "/peers/" in str(item.path):
            item.add_marker(pytest.mark.peers)
            if not item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.full)
