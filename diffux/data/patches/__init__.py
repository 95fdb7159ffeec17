"""The TFDS builder of `patches`."""
