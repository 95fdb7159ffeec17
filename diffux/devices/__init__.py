"""Devices: the mesh that arrays live on, several processes as one run, and the compilation cache."""
