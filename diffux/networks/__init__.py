"""Networks of arrays, which know nothing of diffusion: x, a number a sample, and a mapping of conditions."""
