"""Likelihoods of Gaussian processes: the probability flow's density, its latents, dequantization, and the continuous bound."""

from diffux.likelihood._bound import ContinuousBound, bound, reconstruction
from diffux.likelihood.dequantization import BitsPerDim, Dequantizer, bits_per_dim, fit_dequantizer, uniform, variational
from diffux.likelihood.divergence import Divergence, exact, hutchinson
from diffux.likelihood.flow import LogProb, decode, encode, interpolate, log_prob

__all__ = [
    "BitsPerDim", "ContinuousBound", "Dequantizer", "Divergence", "LogProb", "bits_per_dim", "bound", "decode", "encode", "exact",
    "fit_dequantizer", "hutchinson", "interpolate", "log_prob", "reconstruction", "uniform", "variational",
]  # fmt: skip
