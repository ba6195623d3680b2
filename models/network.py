"""A trained network as its weights and a plain numpy function of them: what all deep detectors score with.

Keras trains (``models.training``), numpy scores (``models.runtime``): a worker that loads artifacts starts in a
fraction of TensorFlow's time and memory, and scores faster. That both are the same function is not believed but
measured: after training on windows of the validation part, and again at every load on one of those windows, which
travels with the weights together with Keras's answer.

Windows are computed in blocks of one fixed size, padded. That is what makes a score depend on its window alone: BLAS
picks its kernels by shape, they may add in another order, and live, replay and backtest batch differently (the contract
tests hold it to the bit). For the same reason a block has an empty edge on both sides: OpenBLAS's product for CPUs with
AVX2 alone (Haswell to Zen 3) adds the first and the last eight columns in another order than those between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.base import Float32
from models.errors import InvalidArtifact, TrainingError
from models.weights import checked

#: Windows computed at once. A live batch is mostly smaller and pays for all of them: 32 would cost a third less for one
#: window, and a quarter more for each of many.
BLOCK: Final = 64
#: Windows that a freshly trained network is compared with Keras on.
COMPARED: Final = 256

#: What a network has learnt, in order: (Keras's name of the array, its shape).
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
#: (weights, x (time, signal, batch) float32, config) -> what the network gives for it, of the same layout.
Forward = Callable[[Sequence[Float32], Float32, Any], Float32]

EDGE = 8  # columns at each side of a block that hold no window
_TOLERANCE = 1e-4  # scaled units, or of the largest value if that is above 1: far below any error that counts


class Network:
    """One model's weights with what computes with them. Thread-safe once it is trained or loaded."""

    def __init__(
        self, forward: Forward, shapes: Shapes, config: Any, outputs: int | None = None, rows: int | None = None
    ) -> None:
        """``outputs``: numbers that it gives for each row, ``rows``: how many of these; what it reads unless told."""
        self._forward, self._config, self._outputs, self._rows = forward, config, outputs, rows
        self._shapes = {f"network.{place:02d}.{name}": shape for place, (name, shape) in enumerate(shapes)}
        self._weights: list[Float32] | None = None
        self._probe: tuple[Float32, Float32] | None = None  # a window, and Keras's answer: (time, signal) each

    def predict(self, x: Float32) -> Float32:
        """(batch, time, signal) float32 without NaN -> the network's output, the same bits in any company."""
        if self._weights is None:
            raise RuntimeError("the detector is neither trained nor loaded")
        out = np.empty((len(x), self._rows or x.shape[1], self._outputs or x.shape[2]), np.float32)
        for start in range(0, len(x), BLOCK):
            part = x[start : start + BLOCK]
            held = slice(EDGE, EDGE + len(part))
            block = np.zeros((*x.shape[1:], BLOCK + 2 * EDGE), np.float32)
            block[:, :, held] = part.transpose(1, 2, 0)
            computed = self._forward(self._weights, block, self._config)
            out[start : start + BLOCK] = computed[:, :, held].transpose(2, 0, 1)
        return out

    def adopt(self, weights: list[Float32], x: Float32, wanted: Float32) -> float:
        """Take trained weights; ``wanted`` is what Keras makes of ``x`` with them, both (batch, time, signal).

        Returns the largest difference, scaled units. Raises ``TrainingError`` if it is above the tolerance.
        """
        self._weights = weights
        difference, allowed = _compare(self.predict(x), wanted)
        if not difference <= allowed:
            self._weights = None
            raise TrainingError(
                f"the trained network gives other numbers in numpy than in Keras: they differ by {difference:.2g} "
                f"scaled units, {allowed:.2g} are allowed; another `seed` or fewer `units` make it calmer"
            )
        self._probe = np.array(x[-1]), np.array(wanted[-1])
        return difference

    def arrays(self) -> list[Float32]:
        """What it has learnt, in the order of its page's ``shapes``."""
        if self._weights is None:
            raise RuntimeError("the detector is neither trained nor loaded")
        return self._weights

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Named arrays, as the artifact stores them."""
        if self._weights is None or self._probe is None:
            raise RuntimeError("the detector is neither trained nor loaded")
        learnt = dict(zip(self._shapes, self._weights, strict=True))
        return learnt | {"parity.input": self._probe[0], "parity.output": self._probe[1]}

    def load_weights(self, weights: Mapping[str, npt.NDArray[Any]], rows: int, inputs: int) -> None:
        """Take what ``weights`` gave, for a network that reads (``rows``, ``inputs``).

        Raises ``InvalidArtifact`` on a missing, misshapen or non-finite array, and if the network does not give for
        ``parity.input`` what Keras gave after training, ``parity.output``.
        """
        taken = [checked(weights, name, shape) for name, shape in self._shapes.items()]
        given = checked(weights, "parity.input", (rows, inputs))
        wanted = checked(weights, "parity.output", (self._rows or rows, self._outputs or inputs))
        self._weights = taken
        difference, allowed = _compare(self.predict(given[None]), wanted[None])
        if not difference <= allowed:
            self._weights = None
            raise InvalidArtifact(
                f"weights: the network's answer to 'parity.input' differs from 'parity.output' by {difference:.2g} "
                f"scaled units, {allowed:.2g} are allowed"
            )
        self._probe = given, wanted


def _compare(ours: Float32, wanted: Float32) -> tuple[float, float]:
    """The largest difference, and the largest allowed."""
    return float(np.abs(ours - wanted).max()), _TOLERANCE * max(1.0, float(np.abs(wanted).max()))
