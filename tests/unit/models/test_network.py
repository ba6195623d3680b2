import threading
from dataclasses import dataclass

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow


@dataclass(frozen=True)
class Config:
    window: int = 16
    units: int = 4


def build(signals, config):
    import keras

    rows = keras.Input((config.window, signals))
    return keras.Model(rows, keras.layers.Dense(signals)(keras.layers.LSTM(config.units, return_sequences=True)(rows)))


def prepare(windows):
    return windows, windows, np.ones_like(windows)


def fitted(seed=0, epochs=3):
    from models.network import Network, Schedule
    from models.windows import WindowSet

    rows = np.random.default_rng(1).normal(size=(200, 2)).astype(np.float32)
    network = Network(build, 2, Config())
    network.fit(
        WindowSet.over([rows], 16, signals=2),
        WindowSet.over([rows[:60]], 16, signals=2),
        prepare,
        schedule=Schedule(epochs=epochs),
        seed=seed,
    )
    return network


def test_models_of_one_shape_share_one_compilation():
    from models import network

    first, second = fitted(seed=0), fitted(seed=1)
    assert first._program is second._program
    assert first._program.step.experimental_get_tracing_count() == 1
    windows = np.zeros((100, 16, 2), np.float32)
    for batch in (1, 7, 32, 100):
        first.predict(windows[:batch])
        second.predict(windows[:batch])
    assert first._program.call.experimental_get_tracing_count() == 1
    assert network._program(build, 2, Config(units=5)) is not first._program


def test_arrays_are_named_alike_whatever_was_built_before():
    from models.network import Network

    shapes = [Network(build, 2, Config(units=units)) for units in (4, 6, 7)]
    assert shapes[0]._program.names == shapes[1]._program.names == shapes[2]._program.names


def test_two_models_of_one_shape_do_not_share_weights():
    first, second = fitted(seed=0), fitted(seed=1)
    windows = np.random.default_rng(2).normal(size=(4, 16, 2)).astype(np.float32)
    before = first.predict(windows)
    assert not np.array_equal(before, second.predict(windows))
    fitted(seed=2)
    assert before.tobytes() == first.predict(windows).tobytes()


def test_training_lowers_the_loss():
    from models.network import Network, Schedule
    from models.windows import WindowSet

    rows = np.sin(np.arange(300)[:, None] / np.array([3.0, 7.0])).astype(np.float32)
    network = Network(build, 2, Config())
    windows = WindowSet.over([rows], 16, signals=2)
    report = network.fit(windows, windows, prepare, schedule=Schedule(epochs=10), seed=0)
    assert report.curves["validation_loss"][-1] < 0.3 * report.curves["validation_loss"][0]
    assert report.figures["validation_loss"] == min(report.curves["validation_loss"])


def test_many_threads_score_the_same_bits():
    networks = [fitted(seed=0), fitted(seed=1)]
    windows = np.random.default_rng(2).normal(size=(200, 16, 2)).astype(np.float32)
    wanted = [network.predict(windows).tobytes() for network in networks]
    wrong: list[object] = []

    def work(which):
        wrong.extend(which for _ in range(10) if networks[which].predict(windows).tobytes() != wanted[which])

    threads = [threading.Thread(target=work, args=(index % 2,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
