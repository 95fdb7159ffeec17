"""The TFDS builder of `digits`."""
