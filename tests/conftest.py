"""Fixtures shared by all tests; shapes written in the package's annotations are checked while the tests run."""

import contextlib
import ctypes
import gc
import os
import sys
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import chex
import jax
import jaxtyping
import pytest
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 - named by the hook below

ROOT = Path(__file__).parent.parent
FILES = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "diffux").rglob("*.py")]
MODULES = [".".join(path.parts).removesuffix(".__init__") for path in FILES if path.stem != "__init__"]
install_import_hook(MODULES, "tests.typechecker.check")

from diffux.devices.compilation_cache import remove_unfinished  # noqa: E402 - after the hook


def pytest_configure(config):
    """What another worker, another process or an earlier run has compiled is not compiled again; `--cache-clear` forgets it."""
    if not hasattr(config, "cache") or "JAX_COMPILATION_CACHE_DIR" in os.environ:  # -p no:cacheprovider, or told where
        return
    folder = config.cache.mkdir("programs")
    remove_unfinished(folder)
    settings = {
        "compilation_cache_dir": str(folder),
        "persistent_cache_min_compile_time_secs": 0,
        "persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(f"jax_{name}", value)
        os.environ[f"JAX_{name.upper()}"] = str(value)  # for the processes that tests start


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config, items):
    """Cases that `@pytest.mark.full(but=...)` leaves in every run: the first of them by number, or those with these ids. With
    `one_in=3` the full tier has every third of the others, and the slow one the rest."""
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker("slow"):  # the tiers have nothing in common
            item.own_markers = [mark for mark in item.own_markers if mark.name != "full"]
        elif (mark := item.get_closest_marker("full")) and mark.kwargs:
            cases[item.nodeid.partition("[")[0], mark.kwargs["but"], mark.kwargs.get("one_in", 1)].append(item)
    for (function, kept, one_in), chosen in cases.items():
        ids = [item.callspec.id for item in chosen]
        stay = ids[:kept] if isinstance(kept, int) else kept
        if not any("::" in argument for argument in config.args) and not set(stay) <= set(ids):
            raise pytest.UsageError(f"{function} has no cases {sorted(set(stay) - set(ids))}; there are {ids}")
        others = [item for item in chosen if item.callspec.id not in stay]
        for item in chosen:
            if item not in others or others.index(item) % one_in:
                item.own_markers = [mark for mark in item.own_markers if mark.name != "full"]
            if item in others and others.index(item) % one_in:
                item.add_marker("slow")


def pytest_runtest_setup(item):
    """Examples show what comes out: their programs are compiled quickly, see `quick`."""
    quick = isinstance(item, pytest.DoctestItem) or "quick" in getattr(item, "fixturenames", ())
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture(autouse=True)
def traced_anew():
    """What `chex.assert_max_traces` counts begins with the test."""
    chex.clear_trace_counter()


@pytest.fixture(scope="module", autouse=True)
def room():
    """Compiled programs are forgotten once a process holds gigabytes of them; what is needed again is read from the cache."""
    yield
    if _resident() > _MOST:
        jax.clear_caches()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # glibc keeps what is freed


_MOST = float(os.environ.get("DIFFUX_TEST_MEMORY", 5e9))  # bytes, of each worker


def _resident() -> int:
    """The bytes of memory that this process has; 0 where nothing tells it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """One cache for data, judges and compiled programs in the whole run, outside the user's own."""
    folder = tmp_path_factory.getbasetemp()
    path = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "cache"  # the workers share it
    path.mkdir(exist_ok=True)
    os.environ["DIFFUX_CACHE"] = str(path)
    return path


@pytest.fixture(autouse=True)
def no_parts_of_ones_own(monkeypatch):
    """What a test uses from outside the package is no longer in use when it ends: other tests list what the package has."""
    from diffux import listing

    used = {}
    monkeypatch.setattr(listing, "USED", used)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in used | listing.USED:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def quick():
    """Programs compiled with little optimization, in half the time: for tests of what a run does and not of its numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # for the processes that a test starts; in this one before its setup
        yield


@pytest.fixture
def untyped():
    """Annotations unchecked, as they are for users: what is refused then is refused by the package itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def x64():
    """Float64 for the length of a test: closed forms are compared to rounding."""
    with jax.enable_x64(True):
        yield
