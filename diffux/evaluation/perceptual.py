"""Perceptual distances of pairs of images, as evaluations name them: LPIPS of a file, and that of a random network."""

from diffux.networks.perceptual import BACKBONES, LPIPS, RandomFeatures, random_features
from diffux.pretrained.lpips import load as lpips

__all__ = ["BACKBONES", "LPIPS", "RandomFeatures", "lpips", "random_features"]
