"""The persistent compilation cache: a program compiled once is not compiled again by the next process."""

from __future__ import annotations

import os

import jax

from diffux.data.cache import cache_dir


def use_compilation_cache() -> None:
    """Keep compiled programs in `compilation/` of the cache, unless JAX was already told another place.

    The cache is $DIFFUX_CACHE or ~/.cache/diffux; an empty JAX_COMPILATION_CACHE_DIR switches it off.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.jax_compilation_cache_dir:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compilation"))
    # JAX's defaults keep only programs that took a second to compile; a U-Net comes with dozens of small ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
