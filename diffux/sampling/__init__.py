"""Samples of trained runs, as arrays, pictures and files."""
