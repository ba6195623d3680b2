import threading
from dataclasses import dataclass

import numpy as np
import pytest

from models import runtime
from models.errors import InvalidArtifact, TrainingError
from models.network import BLOCK, Network
from models.windows import WindowSet


@dataclass(frozen=True)
class Config:
    window: int = 16
    units: int = 4


def build(signals, config):
    import keras

    rows = keras.Input((config.window, signals))
    return keras.Model(rows, keras.layers.Dense(signals)(keras.layers.LSTM(config.units, return_sequences=True)(rows)))


def shapes(signals, config):
    return (*runtime.lstm_shapes(signals, config.units), *runtime.dense_shapes(config.units, signals))


def forward(weights, x, config):
    return runtime.dense(runtime.lstm(x, *weights[:3]), *weights[3:])


def prepare(windows):
    return windows, windows, np.ones_like(windows)


def rows_of(count, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)


def learnt(seed=0, epochs=3, rows=None, config=Config(), shapes=shapes):
    from models.training import Schedule, learn

    rows = rows_of(200) if rows is None else rows
    windows = WindowSet.over([rows], 16, signals=2)
    later = WindowSet.over([rows[:60]], 16, signals=2)
    return learn(
        build, shapes(2, config), 2, config, windows, later, prepare, schedule=Schedule(epochs=epochs), seed=seed
    )


def network_of(weights, config=Config(), signals=2):
    """A network that takes its own word for what Keras would say."""
    network = Network(forward, shapes(signals, config), config)
    x = np.random.default_rng(7).normal(size=(1, 16, signals)).astype(np.float32)
    network._weights = weights
    network.adopt(weights, x, network.predict(x))
    return network


def drawn(seed=0, config=Config(), signals=2):
    """A network with weights drawn by lot."""
    rng = np.random.default_rng(seed)
    return network_of(
        [rng.normal(0, 0.5, shape).astype(np.float32) for _, shape in shapes(signals, config)], config, signals
    )


@pytest.mark.tensorflow
def test_models_of_one_shape_share_one_compilation():
    from models import training

    first, second = learnt(seed=0), learnt(seed=1)
    program = training._program(build, 2, Config())
    windows = np.zeros((100, 16, 2), np.float32)
    for batch in (1, 7, 64, 100):
        first.predict(windows[:batch])
        second.predict(windows[:batch])
    assert program.step.experimental_get_tracing_count() == 1
    assert program.call.experimental_get_tracing_count() == 1
    assert training._program(build, 2, Config(units=5)) is not program


@pytest.mark.tensorflow
def test_arrays_are_named_alike_whatever_was_built_before():
    from models import training

    for units in (4, 6, 7):
        assert training._program(build, 2, Config(units=units)).shapes == shapes(2, Config(units=units))


@pytest.mark.tensorflow
def test_a_page_whose_shapes_are_not_its_networks_is_a_mistake():
    with pytest.raises(TypeError, match="the page says"):
        learnt(shapes=lambda signals, config: shapes(signals, config)[:-1])


@pytest.mark.tensorflow
def test_training_lowers_the_loss():
    rows = np.sin(np.arange(300)[:, None] / np.array([3.0, 7.0])).astype(np.float32)
    report = learnt(epochs=10, rows=rows).report
    assert report.curves["validation_loss"][-1] < 0.3 * report.curves["validation_loss"][0]
    assert report.figures["validation_loss"] == min(report.curves["validation_loss"])


@pytest.mark.tensorflow
def test_numpy_gives_what_keras_gives():
    trained = learnt()
    x = np.random.default_rng(4).normal(size=(100, 16, 2)).astype(np.float32)
    network = Network(forward, shapes(2, Config()), Config())
    assert network.adopt(trained.weights, x, trained.predict(x)) < 1e-5


def test_a_network_that_is_not_keras_s_is_no_training():
    network = drawn()
    weights, x = network._weights, np.ones((3, 16, 2), np.float32)
    wanted = network.predict(x)
    wanted[1, 7, 1] += 0.01
    fresh = Network(forward, shapes(2, Config()), Config())
    with pytest.raises(TrainingError, match=r"differ by 0\.01"):
        fresh.adopt(weights, x, wanted)
    with pytest.raises(RuntimeError, match="neither trained"):
        fresh.predict(x)


@pytest.mark.parametrize("name", ["parity.input", "parity.output", "network.01.recurrent_kernel", "network.04.bias"])
def test_weights_that_answer_otherwise_than_in_training_are_refused(name):
    weights = drawn(seed=3).weights()
    Network(forward, shapes(2, Config()), Config()).load_weights(weights, 16, 2)
    changed = weights | {name: weights[name] + np.float32(0.3)}
    with pytest.raises(InvalidArtifact, match=r"'parity\.input' differs from 'parity\.output' by"):
        Network(forward, shapes(2, Config()), Config()).load_weights(changed, 16, 2)
    del changed[name]
    with pytest.raises(InvalidArtifact, match=f"'{name}' is missing"):
        Network(forward, shapes(2, Config()), Config()).load_weights(changed, 16, 2)


@pytest.mark.parametrize("signals", [1, 2, 3, 17, 30])
@pytest.mark.parametrize("units", [1, 5, 32])
def test_a_window_gives_the_same_bits_in_any_place_and_company(signals, units):
    network = drawn(config=Config(units=units), signals=signals)
    windows = np.random.default_rng(2).normal(size=(3 * BLOCK + 5, 16, signals)).astype(np.float32)
    whole = network.predict(windows)
    for place in (0, 1, 15, 16, BLOCK - 1, BLOCK, 2 * BLOCK + 33, 3 * BLOCK + 4):
        assert network.predict(windows[place : place + 1])[0].tobytes() == whole[place].tobytes()
    for start in range(1, 40, 7):
        assert network.predict(windows[start:]).tobytes() == whole[start:].tobytes()


def test_two_models_of_one_shape_do_not_share_weights():
    first, second = drawn(seed=0), drawn(seed=1)
    windows = np.random.default_rng(2).normal(size=(4, 16, 2)).astype(np.float32)
    before = first.predict(windows)
    assert not np.array_equal(before, second.predict(windows))
    drawn(seed=2)
    assert before.tobytes() == first.predict(windows).tobytes()


def test_many_threads_score_the_same_bits():
    networks = [drawn(seed=0), drawn(seed=1)]
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
