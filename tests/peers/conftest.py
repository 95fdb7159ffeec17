"""Parity with independent implementations; the whole folder is skipped where they are not installed."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if "/peers/" in str(item.path):
            item.add_marker(pytest.mark.peers)
