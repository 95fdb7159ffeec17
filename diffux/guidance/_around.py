"""What transforms have in common that go around another one, or know the unguided estimate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffux.denoisers import memory, tells_step
from diffux.types import Denoiser, Prediction, Transform, pictures


class Around:
    """A transform that changes what another one, its `guidance`, does: it asks for what that asks for."""

    guidance: Transform

    @property
    def tells_step(self) -> bool:
        return tells_step([self.guidance])

    def memory(self, x) -> dict[str, Any]:
        return memory([self.guidance], x)

    @property
    def reads(self) -> Mapping[str, int | None]:
        return getattr(self.guidance, "reads", {})

    @property
    def pictures(self) -> tuple[str, ...]:
        return pictures(self.guidance)

    def fits(self, system) -> None:
        if hasattr(self.guidance, "fits"):
            self.guidance.fits(system)


class Beside:
    """A transform that knows the unguided estimate as well, of the same evaluation."""

    def beside(self, denoise: Denoiser) -> Callable[..., tuple[Prediction, Prediction]]:
        """(x, level, cond) -> the guided prediction and the unguided one."""
        raise NotImplementedError

    def __call__(self, denoise: Denoiser) -> Denoiser:
        pair = self.beside(denoise)
        return lambda x, level, cond: pair(x, level, cond)[0]
