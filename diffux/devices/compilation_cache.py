"""The persistent compilation cache: a program compiled once is not compiled again by the next process."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
import zlib

import jax

from diffux.data.cache import cache_dir


def use_compilation_cache() -> None:
    """Keep compiled programs in `compilation/` of the cache, unless JAX was already told another place.

    The cache is $DIFFUX_CACHE or ~/.cache/diffux; an empty JAX_COMPILATION_CACHE_DIR switches it off.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.jax_compilation_cache_dir:
        return
    folder = cache_dir() / "compilation"
    remove_unfinished(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX's defaults keep only programs that took a second to compile; a U-Net comes with dozens of small ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


_DAY, _WRITING = 24 * 3600, 10  # seconds; the second is longer than a process takes to write an entry


def remove_unfinished(folder: pathlib.Path) -> None:
    """Remove the entries that a killed process left half written: JAX finds them unreadable at every start, and keeps them.

    Looks only at those that came since it last looked, and leaves alone what may still be growing.
    """
    mark, now = folder / ".checked", time.time()
    with contextlib.suppress(OSError):
        since = mark.stat().st_mtime if mark.exists() else now - _DAY
        for entry in folder.glob("*-cache"):
            if since <= entry.stat().st_mtime < now - _WRITING and not _whole(entry.read_bytes()):
                entry.unlink(missing_ok=True)
        if folder.is_dir():
            mark.touch()
            os.utime(mark, (now - _WRITING, now - _WRITING))


def _whole(entry: bytes) -> bool:
    try:
        if entry[:4] == b"\x28\xb5\x2f\xfd":  # JAX compresses with zstandard where that is installed
            import zstandard

            zstandard.ZstdDecompressor().decompress(entry)
        else:
            zlib.decompress(entry)
    except ImportError:
        return True
    except Exception:  # zlib.error, and zstandard's own
        return False
    return True
