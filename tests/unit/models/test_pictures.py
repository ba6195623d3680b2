import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.blemishes import VISIBLE, spoil
from models.errors import DataError
from models.pictures import PictureRefused, decode, read_folder
from models.raster import conv, doubled, read, reduced, smooth
from models.simulate_tiles import DEFECTS, jpeg, tile


def encoded(pixels, kind="PNG"):
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind)
    return sink.getvalue()


def grey(rows=40, columns=50):
    return np.random.default_rng(0).integers(0, 256, (rows, columns), np.uint8)


def test_png_is_read_as_it_was_and_colours_as_grey():
    pixels = grey()
    assert decode(encoded(pixels)).tobytes() == pixels.tobytes()
    assert np.abs(decode(jpeg(tile(np.random.default_rng(0)).pixels)).astype(int).mean() - 120) < 40
    colours = np.zeros((40, 50, 3), np.uint8)
    colours[..., 0] = 200
    assert decode(encoded(colours)).mean() == pytest.approx(200 * 0.299, abs=1)
    sixteen = (pixels.astype(np.uint16) << 8) + 7
    assert decode(encoded(sixteen)).tobytes() == pixels.tobytes()


def bomb(width, height):
    """A PNG of a few hundred bytes that claims to be enormous."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_a_picture"),
        (b"GIF89a" + b"\0" * 99, "not_a_picture"),
        (encoded(grey())[:-60], "not_a_picture"),
        (encoded(grey(), "BMP"), "not_a_picture"),
        (bomb(60_000, 60_000), "too_many_pixels"),
        (bomb(2_000_000_000, 2_000_000_000), "too_many_pixels"),
        (encoded(grey(8, 50)), "too_small"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(data, reason):
    with pytest.raises(PictureRefused) as refused:
        decode(data)
    assert refused.value.reason == reason


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_whatever_break_the_decoder(garbage, at):
    whole = encoded(grey())
    for data in (garbage, whole[:at] + garbage + whole[at + len(garbage) :]):
        with contextlib.suppress(PictureRefused):
            decode(data)


def test_a_folder_of_folders_is_a_labelled_set(tmp_path):
    for kind in ("MT_Free", "MT_Crack"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "one.jpg").write_bytes(encoded(grey(), "JPEG"))
        mask = np.zeros((40, 50), np.uint8)
        mask[10:20, 5:9] = 255 * (kind == "MT_Crack")
        (tmp_path / kind / "one.png").write_bytes(encoded(mask))
    crack, good = read_folder(tmp_path)
    assert (crack.kind, good.kind) == ("crack", "normal")
    assert crack.mask is not None
    assert crack.mask.sum() == 40
    with pytest.raises(DataError, match="no picture"):
        read_folder(tmp_path / "MT_Free")
    (tmp_path / "MT_Free" / "two.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"two\.jpg"):
        read_folder(tmp_path)


def test_a_brighter_light_changes_only_the_level():
    pixels = grey(64, 64) // 4 + 60
    one, two = read(reduced(pixels)), read(reduced(pixels * np.uint8(2)))
    assert np.abs(one - two).max() < 0.15  # but for the few grey values that the dark is given


@pytest.mark.tensorflow
@pytest.mark.parametrize(("taps", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
def test_convolutions_are_those_of_keras(taps, stride):
    import keras

    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 17, 3)).astype(np.float32)
    layer = keras.layers.Conv2D(4, taps, strides=stride, padding="same")
    wanted = layer(x[None]).numpy()[0]
    kernel, bias = layer.get_weights()
    assert np.abs(conv(x, kernel, bias, stride) - wanted).max() < 1e-4
    assert np.array_equal(doubled(x), keras.layers.UpSampling2D(2)(x[None]).numpy()[0])


def test_smoothing_keeps_the_mean_and_spreads_a_point():
    x = np.zeros((41, 41), np.float32)
    x[20, 20] = 1
    spread = smooth(x, 2.0)
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert spread[20, 20] == pytest.approx(1 / (2 * np.pi * 4), rel=0.02)


def test_made_up_defects_are_seen_where_they_are_said_to_be():
    rng = np.random.default_rng(0)
    light, other = (reduced(tile(rng).pixels) for _ in range(2))
    shares = []
    for _ in range(60):
        change, seen = spoil(light, other, rng)
        assert change.shape == seen.shape == light.shape
        assert np.array_equal(seen, np.abs(change) > VISIBLE)
        shares.append(seen.mean())
    assert 0.001 < np.median(shares) < 0.3


def test_simulated_tiles_have_their_defect_where_the_mask_says():
    for defect in DEFECTS:
        picture = tile(np.random.default_rng(1), defect)
        assert picture.mask is not None
        assert 10 < picture.mask.sum() < picture.mask.size / 4
        assert picture.pixels[picture.mask].mean() < picture.pixels[~picture.mask].mean() - 20
