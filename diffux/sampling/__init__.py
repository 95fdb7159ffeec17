"""Samples of trained runs, as arrays, pictures and files."""

from diffux.sampling.draw import samples

__all__ = ["samples"]
