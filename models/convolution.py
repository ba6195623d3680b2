"""Causal convolutions that take only the newest rows, many assets at once; what ``models.stepping`` carries of them.

A dilated convolution reads rows that lie far back, so each layer remembers as many of its inputs as it reaches back:
what it makes of a new row then costs one product, and nothing older is ever worked out again (Paine et al. 2016, Fast
Wavenet Generation Algorithm). All rows of a batch go through a layer together, not one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.base import Float32
from models.compiled_steps import Laid
from models.stepping import Order
from models.tiles import product


@dataclass(frozen=True, slots=True)
class CausalLayer:
    """A trained convolution: kernel (tap, in, out) and bias (out,) as Keras has them."""

    kernel: Float32
    bias: Float32
    dilation: int

    @property
    def reach(self) -> int:
        """Rows back from a row to the oldest that it sees."""
        return (len(self.kernel) - 1) * self.dilation


@dataclass(frozen=True)
class Convolutions:
    """A trained convolutional forecaster as plain arrays: a ``models.stepping.Body``.

    layers  from the input up; all but the first add to what they read (residual)
    rest    (filter, signal) from the last layer, with ``rest_bias`` (signal,)
    linear  (lag, signal): the autoregression's weight for each of the last rows, the newest last
    """

    layers: tuple[CausalLayer, ...]
    rest: Float32
    rest_bias: Float32
    linear: Float32

    @cached_property
    def _laid(self) -> list[Float32]:
        """Each layer's weights of one product with all rows that it sees, the oldest first."""
        return [np.ascontiguousarray(layer.kernel.reshape(-1, len(layer.bias)).T) for layer in self.layers]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What is remembered of an asset: each layer's last inputs, and what was foretold of the row to come."""
        inputs: dict[str, tuple[int, ...]] = {
            f"layer{n}": (layer.reach, layer.kernel.shape[1]) for n, layer in enumerate(self.layers)
        }
        return inputs | {"foretold": (1, len(self.rest_bias))}

    def laid(self) -> list[Laid]:
        """None of its layers goes from row to row."""
        return []

    def walk(self, arrays: Mapping[str, Float32], order: Order, inputs: Float32) -> Float32:
        """What the rows before each of ``inputs`` (row, signal) foretold of it, without the lags."""
        slots = order.slots
        hidden = inputs
        for number, (layer, laid) in enumerate(zip(self.layers, self._laid, strict=True)):
            held, reach = arrays[f"layer{number}"], layer.reach
            known = order.after(held[slots], hidden)
            held[slots] = order.newest(known, reach)
            seen = [order.before(known, reach, back) for back in range(reach, -1, -layer.dilation)]
            made = product(laid, np.concatenate(seen, axis=1))
            made += layer.bias
            np.maximum(made, 0, out=made)
            if number:
                made += hidden
            hidden = made
        foretold = product(np.ascontiguousarray(self.rest.T), hidden)
        foretold += self.rest_bias
        known = order.after(arrays["foretold"][slots], foretold)
        arrays["foretold"][slots] = order.newest(known, 1)
        return np.array(order.before(known, 1, 1))
