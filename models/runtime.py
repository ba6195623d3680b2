"""The layers of our networks in plain numpy, for scoring: Keras's numbers without TensorFlow in the process.

Arrays are (time, channel, batch), unlike Keras's (batch, time, channel). With the batch last, a gate of a recurrent
cell and a tap of a convolution are whole stretches of memory: every matrix product reads its input where it lies, and
every other operation runs over thousands of neighbouring numbers. Kernels and biases come as Keras stores them.

A recurrent step costs one product and one tanh over all gates. For that its input stands as ``[state; row; 1]`` below
each other, matched by one matrix of the three kernels and biases, and a sigmoid is taken as (1 + tanh(x / 2)) / 2 with
the half already in the matrix (a power of two, so nothing is rounded).

All is float32. The functions keep nothing between calls and may run in several threads. Given one shape, they treat
every column of the batch alike; see ``models.network`` for why that matters.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.lib.stride_tricks import as_strided

from models.base import Float32
from models.network import Shapes

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)


def dense(x: Float32, kernel: Float32, bias: Float32) -> Float32:
    """Keras's Dense: ([time,] in, batch), kernel (in, out), bias (out,) -> ([time,] out, batch)."""
    out = _product(kernel, x)
    out += bias[:, None]
    return out


def lstm(x: Float32, kernel: Float32, recurrent: Float32, bias: Float32) -> Float32:
    """Keras's LSTM: (time, in, batch) -> the state after each row, (time, unit, batch).

    kernel (in, 4 unit), recurrent (unit, 4 unit), bias (4 unit,): gates in the order input, forget, cell, output.
    """
    units = len(recurrent)
    cells = np.concatenate([recurrent, kernel, bias[None]]).reshape(-1, 4, units)
    cells = cells[:, [0, 1, 3, 2]] * np.array([_HALF, _HALF, _HALF, _ONE])[:, None]  # the three sigmoids side by side
    matrix = np.ascontiguousarray(cells.reshape(-1, 4 * units).T)  # (4 unit, unit + in + 1)
    steps = _steps(x, units)
    gates = np.empty((4 * units, x.shape[2]), np.float32)
    sigmoids = gates[: 3 * units]
    enter, forget, leave, new = gates.reshape(4, units, -1)
    memory = np.zeros_like(new)
    for now, following in itertools.pairwise(steps):
        np.matmul(matrix, now, out=gates)
        np.tanh(gates, out=gates)
        sigmoids *= _HALF
        sigmoids += _HALF
        memory *= forget
        new *= enter
        memory += new
        np.tanh(memory, out=new)
        np.multiply(leave, new, out=following[:units])
    return steps[1:, :units]


def gru(x: Float32, kernel: Float32, recurrent: Float32, bias: Float32) -> Float32:
    """Keras's GRU (``reset_after``): (time, in, batch) -> the state after each row, (time, unit, batch).

    kernel (in, 3 unit), recurrent (unit, 3 unit), bias (2, 3 unit), for rows and for the state: gates in the order
    update, reset, candidate.
    """
    units, gated = len(recurrent), 2 * len(recurrent)
    cells = np.zeros((units + len(kernel) + 1, 4 * units), np.float32)
    cells[:units, : 3 * units] = recurrent
    cells[units:-1, :gated] = kernel[:, :gated]
    cells[-1, :gated] = bias[0, :gated] + bias[1, :gated]
    cells[:, :gated] *= _HALF
    # the candidate's two halves apart: reset acts on what the state says, not on what the row says
    cells[-1, gated : 3 * units] = bias[1, gated:]
    cells[units:-1, 3 * units :] = kernel[:, gated:]
    cells[-1, 3 * units :] = bias[0, gated:]
    matrix = np.ascontiguousarray(cells.T)  # (4 unit, unit + in + 1)
    steps = _steps(x, units)
    gates = np.empty((4 * units, x.shape[2]), np.float32)
    sigmoids = gates[:gated]
    update, reset, said, new = gates.reshape(4, units, -1)
    for now, following in itertools.pairwise(steps):
        np.matmul(matrix, now, out=gates)
        np.tanh(sigmoids, out=sigmoids)
        sigmoids *= _HALF
        sigmoids += _HALF
        said *= reset
        new += said
        np.tanh(new, out=new)
        np.subtract(now[:units], new, out=said)
        said *= update
        np.add(said, new, out=following[:units])
    return steps[1:, :units]


def simple_rnn(x: Float32, kernel: Float32, recurrent: Float32, bias: Float32) -> Float32:
    """Keras's SimpleRNN: (time, in, batch), (in, unit), (unit, unit), (unit,) -> (time, unit, batch)."""
    units = len(recurrent)
    cells = np.concatenate([recurrent, kernel, bias[None]])  # (unit + in + 1, unit)
    steps = _steps(x, units)
    for now, following in itertools.pairwise(steps):
        np.tanh(_product(cells, now), out=following[:units])
    return steps[1:, :units]


def repeat(x: Float32, times: int) -> Float32:
    """Keras's RepeatVector: (in, batch) -> (times, in, batch), without a copy."""
    return np.broadcast_to(x, (times, *x.shape))


def autoregression(x: Float32, kernel: Float32) -> Float32:
    """Each channel's next value from its own last ones: (time, channel, batch), kernel (lag, channel) -> like ``x``.

    Rows before the first count as 0; the kernel's last row belongs to the newest value.
    """
    lags, length = len(kernel), len(x)
    out: Float32 = x * kernel[-1][:, None]
    for back in range(1, min(lags, length)):
        out[back:] += x[: length - back] * kernel[lags - 1 - back][:, None]
    return out


def conv(x: Float32, kernel: Float32, bias: Float32, stride: int = 1) -> Float32:
    """Keras's Conv1D, padding "same": (time, in, batch), kernel (tap, in, out) -> (ceil(time / stride), out, batch)."""
    taps, channels, _ = kernel.shape
    rows = -(-len(x) // stride)
    spare = max((rows - 1) * stride + taps - len(x), 0)
    out = _slide(x, kernel.reshape(taps * channels, -1), taps, spare // 2, rows, stride)
    out += bias[:, None]
    return out


def conv_causal(x: Float32, kernel: Float32, bias: Float32, dilation: int = 1) -> Float32:
    """Keras's Conv1D, padding "causal": (time, in, batch), kernel (tap, in, out) -> (time, out, batch).

    Each row sees itself and those 1, 2, ... times ``dilation`` before it; rows before the first count as 0.
    """
    out = _product(kernel[-1], x)
    for back in range(1, len(kernel)):
        shift = back * dilation
        if shift < len(x):
            out[shift:] += _product(kernel[-1 - back], x[:-shift])
    out += bias[:, None]
    return out


def conv_transposed(x: Float32, kernel: Float32, bias: Float32) -> Float32:
    """Keras's Conv1DTranspose of stride 2, padding "same": (time, in, batch) -> (2 time, out, batch).

    kernel (tap, out, in). Even and odd rows of the result are two plain convolutions, each with every other tap.
    """
    taps, filters, channels = kernel.shape
    left = max(taps - 2, 0) // 2
    out = np.empty((2 * len(x), filters, x.shape[2]), np.float32)
    for phase in range(2):
        first = (phase + left) % 2
        # row 2 n + phase takes its tap first + 2 j from the input's row n + (phase + left - first) / 2 - j
        chosen = kernel[first::2]
        if not len(chosen):
            out[phase::2] = bias[:, None]
            continue
        flat = chosen[::-1].transpose(0, 2, 1).reshape(len(chosen) * channels, filters)
        lead = len(chosen) - 1 - (phase + left - first) // 2
        out[phase::2] = _slide(x, flat, len(chosen), lead, len(x), 1)
        out[phase::2] += bias[:, None]
    return out


def dense_shapes(inputs: int, outputs: int) -> Shapes:
    """What ``dense`` learns."""
    return ("kernel", (inputs, outputs)), ("bias", (outputs,))


def conv_shapes(taps: int, inputs: int, outputs: int) -> Shapes:
    """What ``conv`` and ``conv_causal`` learn."""
    return ("kernel", (taps, inputs, outputs)), ("bias", (outputs,))


def conv_transposed_shapes(taps: int, inputs: int, outputs: int) -> Shapes:
    """What ``conv_transposed`` learns."""
    return ("kernel", (taps, outputs, inputs)), ("bias", (outputs,))


def lstm_shapes(inputs: int, units: int) -> Shapes:
    """What ``lstm`` learns."""
    return ("kernel", (inputs, 4 * units)), ("recurrent_kernel", (units, 4 * units)), ("bias", (4 * units,))


def gru_shapes(inputs: int, units: int) -> Shapes:
    """What ``gru`` learns."""
    return ("kernel", (inputs, 3 * units)), ("recurrent_kernel", (units, 3 * units)), ("bias", (2, 3 * units))


def simple_rnn_shapes(inputs: int, units: int) -> Shapes:
    """What ``simple_rnn`` learns."""
    return ("kernel", (inputs, units)), ("recurrent_kernel", (units, units)), ("bias", (units,))


def relu(x: Float32) -> Float32:
    """What is below 0 becomes 0, in place."""
    return np.maximum(x, np.float32(0), out=x)


def tanh(x: Float32) -> Float32:
    """The hyperbolic tangent, in place."""
    return np.tanh(x, out=x)


def _steps(x: Float32, units: int) -> Float32:
    """(time, in, batch) -> (time + 1, unit + in + 1, batch): state (0 at first, then to be written), row, 1."""
    length, channels, batch = x.shape
    steps = np.empty((length + 1, units + channels + 1, batch), np.float32)
    steps[0, :units] = 0
    steps[:-1, units:-1] = x
    steps[:, -1] = 1
    return steps


def _product(kernel: Float32, x: Float32) -> Float32:
    """(in, out), ([time,] in, batch) -> ([time,] out, batch)."""
    # BLAS has other kernels for a single row, and there (on Haswell) the place in the batch changes a column's last bit
    single = kernel.shape[1] == 1
    out: Float32 = np.matmul((np.repeat(kernel, 2, axis=1) if single else kernel).T, x)
    return out[..., :1, :] if single else out


def _slide(x: Float32, flat: Float32, taps: int, lead: int, rows: int, stride: int) -> Float32:
    """A kernel (taps * in, out) over ``x`` with ``lead`` rows of 0 before it: (rows, out, batch).

    Taps are neighbours in time, so what a row of the result reads is one stretch of memory: nothing is gathered.
    """
    length, channels, batch = x.shape
    padded = np.zeros((max((rows - 1) * stride + taps, lead + length), channels, batch), np.float32)
    padded[lead : lead + length] = x
    step = padded.strides[0]
    reads = as_strided(
        padded, (rows, taps * channels, batch), (stride * step, padded.strides[1], padded.strides[2]), writeable=False
    )
    return _product(flat, reads)
