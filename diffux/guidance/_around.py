"""What transforms have in common that go around others, or know the unguided estimate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffux.denoisers import memory, tells_step
from diffux.types import Denoiser, Prediction, Transform, fits, pictures


class Around:
    """A transform that changes what others do: it asks for what they ask for. They are its `guidance`, unless `inner` says more."""

    guidance: Transform

    @property
    def inner(self) -> tuple[Transform, ...]:
        return (self.guidance,)

    @property
    def tells_step(self) -> bool:
        return tells_step(self.inner)

    def memory(self, x) -> dict[str, Any]:
        return memory(self.inner, x)

    @property
    def reads(self) -> Mapping[str, int | None]:
        return {name: size for part in self.inner for name, size in getattr(part, "reads", {}).items()}

    @property
    def pictures(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.inner for name in pictures(part)))

    def fits(self, system) -> None:
        for part in self.inner:
            fits(part, system)


class Beside:
    """A transform that knows the unguided estimate as well, of the same evaluation."""

    def beside(self, denoise: Denoiser) -> Callable[..., tuple[Prediction, Prediction]]:
        """(x, level, cond) -> the guided prediction and the unguided one."""
        raise NotImplementedError

    def __call__(self, denoise: Denoiser) -> Denoiser:
        pair = self.beside(denoise)
        return lambda x, level, cond: pair(x, level, cond)[0]


def beside(part: Transform, denoise: Denoiser) -> Callable[..., tuple[Prediction, Prediction]]:
    """`Beside.beside` of any transform: of one that does not know the unguided estimate, by one more evaluation."""
    if hasattr(part, "beside"):
        return part.beside(denoise)
    guided = part(denoise)
    return lambda x, level, cond: (guided(x, level, cond), denoise(x, level, cond))
