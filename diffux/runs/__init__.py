"""Runs: what training leaves on disk, and how it is read again."""
