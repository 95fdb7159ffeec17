"""What is said of a transform around another."""

from __future__ import annotations

from collections.abc import Mapping

from diffux.types import Transform


class Around:
    """A transform that changes what another one, its `guidance`, does: it asks for what that asks for."""

    guidance: Transform

    @property
    def tells_step(self) -> bool:
        return getattr(self.guidance, "tells_step", False)

    @property
    def reads(self) -> Mapping[str, int | None]:
        return getattr(self.guidance, "reads", {})

    def fits(self, system) -> None:
        if hasattr(self.guidance, "fits"):
            self.guidance.fits(system)
