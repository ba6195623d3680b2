"""What the autoencoders share: squeeze a window through a bottleneck, be surprised by what does not come back.

The network never sees its inputs without added noise (a denoising autoencoder, Vincent et al. 2008): with a few
hundred windows it would otherwise learn to copy, and a copy brings faults back as faithfully as anything else.
"""

from __future__ import annotations

import numpy as np

from models.base import Float32
from models.deep import DeepDetector
from models.windows import fill_forward


class Autoencoder(DeepDetector):
    """A detector around a network (batch, window, signal) -> the same window, as far as it is normal."""

    def _prepare(self, windows: Float32) -> tuple[Float32, Float32, Float32]:
        known = ~np.isnan(windows)
        return fill_forward(windows), np.where(known, windows, np.float32(0)), known.astype(np.float32)

    def _innovations(self, windows: Float32) -> tuple[Float32, Float32]:
        """(batch, window, signal) -> errors of the newer half of the rows, and what the newest row should have been."""
        returned = self._network.predict(fill_forward(windows))
        half = self.window // 2
        return windows[:, -half:] - returned[:, -half:], returned[:, -1]
