"""What a network is trained for, apart from how (``models.training``).

Most networks are to give their target and need nothing but ``Objective``. Others are trained for more, or against each
other: a subclass says which losses there are and which layers each of them moves. Tensors are Keras's; only training
comes here, so Keras is imported inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models.base import Float32

#: The trained network: windows, and what is drawn beside them (None: zeros) -> its outputs, each (batch, ...).
Call = Callable[[Float32, Float32 | None], list[Float32]]
#: A loss to lower, and the beginnings of the names of the layers that it moves; ("",) is all of them.
Loss = tuple[Any, tuple[str, ...]]

_HUBER: Final = 2.0  # errors beyond two standard deviations count linearly: training data are never quite clean


@dataclass(frozen=True)
class Objective:
    """Give the target, as far as it is known: Huber's loss.

    noise: standard deviation of what is added to the inputs in training, scaled units; not to the targets.
    """

    noise: float = 0.0

    @property
    def drawn(self) -> int:
        """Standard normal numbers that the network reads beside each window, as a second input; 0: it has none."""
        return 0

    def spoil(self, x: Float32, weight: Float32, rng: np.random.Generator) -> tuple[Float32, Float32]:
        """What is read in training, and what counts there, in place of the plain input and weight."""
        if self.noise:
            x = x + rng.normal(0.0, self.noise, x.shape).astype(np.float32)
        return x, weight

    def examine(self, x: Float32, weight: Float32) -> tuple[Float32, Float32]:
        """Likewise for validation; the same every time."""
        return x, weight

    def losses(self, outputs: list[Any], target: Any, weight: Any, progress: Any) -> list[Loss]:
        """From the network's outputs, what to lower; ``progress`` is how far training is, 0 to 1."""
        del progress
        return [(mean(huber(outputs[0] - target), weight), ("",))]

    def worth(self, outputs: list[Any], target: Any, weight: Any) -> Any:
        """(batch, time, signal): how wrong each value is, to stop early by."""
        del weight
        return huber(outputs[0] - target)

    def answer(self, call: Call, x: Float32) -> Float32:
        """What the page's ``forward`` gives in numpy for windows (batch, time, signal), from the Keras network."""
        return call(x, None)[0]


def huber(error: Any) -> Any:
    """Half the square near 0, linear beyond."""
    import keras  # noqa: PLC0415  # only training needs it

    size = keras.ops.abs(error)
    near = keras.ops.minimum(size, _HUBER)
    return near * size - 0.5 * near * near


def mean(values: Any, weight: Any) -> Any:
    """Weighted mean; 0 where nothing counts."""
    import keras  # noqa: PLC0415  # only training needs it

    return keras.ops.sum(weight * values) / keras.ops.maximum(keras.ops.sum(weight), 1.0)
