"""What of a batch is data, by name."""

from __future__ import annotations

from flax import struct


@struct.dataclass
class Of:
    """The batch's entry `name`, and no condition."""

    name: str = struct.field(pytree_node=False)

    def __call__(self, frozen, key, batch, train: bool):
        if self.name not in batch:
            raise ValueError(f"the model is of {self.name}s, and the batch holds {', '.join(map(str, sorted(batch)))}")
        return batch[self.name], {}


def of(name: str) -> Of:
    """The batch's entry `name` as data, and no condition: of("point"), of("sequence"); of("image") is `unconditional`.

    Raises ValueError for a batch without it.

    Example:
        >>> of("point")({}, None, {"point": [[1.0, 2.0]]}, True)
        ([[1.0, 2.0]], {})
    """
    return Of(name)
