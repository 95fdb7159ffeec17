"""Configs: what one may say, and the objects that it stands for."""
