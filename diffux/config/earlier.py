"""Configs that earlier versions saved, in today's words, so that their runs can be sampled and continued."""

from __future__ import annotations

from typing import Any

# of a field: its name today, the network that was its own, and the codecs of continuous and of binary data
_FIELDS = {
    "image": ("image", "multiscale", lambda mean, std: f"pixels({-mean / std}, {(1 - mean) / std})", "binarized({})"),
    "point": ("point", "rbf", lambda mean, std: f"standardized({mean}, {std})", "bits"),
    "sequence": ("bits", "mlp", lambda mean, std: f"standardized({mean}, {std})", "bits"),
}


def _by_field(options: dict[str, Any]) -> dict[str, Any]:
    """diffusion2015 was told a field, numbers and a threshold, where it is now told a field and a codec."""
    if options.get("field") not in _FIELDS:
        return options
    rest = {key: value for key, value in options.items() if key not in ("field", "mean", "std", "threshold", "network")}
    data, network, gaussian, binomial = _FIELDS[options["field"]]
    mean, std, threshold = options.get("mean", 0.0), options.get("std", 1.0), options.get("threshold", 0.5)
    codec = gaussian(mean, std) if options.get("kind", "gaussian") == "gaussian" else binomial.format(threshold)
    return rest | {"data": data, "codec": codec, "network": options.get("network") or network}


SYSTEMS = {"diffusion2015": _by_field}
"""Of a system: its arguments in an earlier version -> today's."""
