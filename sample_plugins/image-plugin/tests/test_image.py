from __future__ import annotations

import gc
import io

import numpy as np
import pytest
from image_plugin import ImageRequest, ImageResponse
from image_plugin._scene import scene
from PIL import Image

import hostkit
from hostkit.testing import isolations

PIXELS = scene(480, 300)


@pytest.fixture(params=isolations())
def host(request):
    with hostkit.Host() as host:
        host.load("image", isolation=request.param)
        yield host
    gc.collect()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def test_a_picture_gets_the_size_that_was_asked_for_and_stays_the_same_picture(host):
    image = host.plugin("image", ImageRequest, ImageResponse)
    small = image.execute(ImageRequest(operation="resize", pixels=PIXELS, size=(120, 75)))
    assert small.pixels.shape == (75, 120, 3)
    assert (small.width, small.height) == (120, 75)
    averaged = PIXELS.reshape(75, 4, 120, 4, 3).mean(axis=(1, 3))
    assert np.abs(small.pixels - averaged).mean() < 4


def test_a_blurred_picture_is_smoother_and_as_bright(host):
    image = host.plugin("image", ImageRequest, ImageResponse)
    blurred = image.execute(ImageRequest(operation="blur", pixels=PIXELS, radius=6)).pixels
    assert blurred.shape == PIXELS.shape
    assert abs(float(blurred.mean()) - float(PIXELS.mean())) < 1.5

    def edges(pixels):
        return np.abs(np.diff(pixels.astype("int16"), axis=0)).mean()

    assert edges(blurred) < edges(PIXELS) / 2


def test_a_histogram_counts_every_pixel_and_draws_a_plot(host):
    told = host.execute("image", {"operation": "histogram", "picture": png(PIXELS), "encode": "png"})
    expected = [np.bincount(PIXELS[..., channel].ravel(), minlength=256) for channel in range(3)]
    assert (told["counts"] == np.array(expected)).all()
    plot = Image.open(io.BytesIO(told["picture"]))
    assert plot.format == "PNG"
    assert plot.size == (told["width"], told["height"])
    colours = {colour for _, colour in plot.getcolors(1 << 20)}
    assert {(214, 58, 47), (52, 150, 71), (52, 101, 195)} <= colours


def test_a_file_goes_in_and_a_file_comes_out(host):
    told = host.execute("image", {"operation": "resize", "picture": png(PIXELS), "size": [48, 30], "encode": "jpeg"})
    picture = Image.open(io.BytesIO(told["picture"]))
    assert (picture.format, picture.size) == ("JPEG", (48, 30))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"operation": "blur"}, "either pixels or a picture"),
        ({"operation": "blur", "pixels": PIXELS, "picture": b"x"}, "either pixels or a picture"),
        ({"operation": "blur", "pixels": PIXELS[0]}, "pixels of height"),
        ({"operation": "blur", "pixels": PIXELS.astype("float64")}, "a numpy array of uint8"),
        ({"operation": "resize", "pixels": PIXELS}, "a size"),
        ({"operation": "resize", "pixels": PIXELS, "size": [0, 5]}, "size.0"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_words(host, request_, words):
    with pytest.raises(hostkit.InvalidRequest, match=words):
        host.execute("image", request_)


@pytest.mark.parametrize("picture", [b"", b"no picture", png(PIXELS)[:2000], b"GIF89a" + bytes(100)])
def test_a_file_that_is_no_picture_is_the_plugins_own_error(host, picture):
    with pytest.raises(hostkit.PluginFailed, match="no picture that can be read"):
        host.execute("image", {"operation": "blur", "picture": picture})


def test_a_decompression_bomb_is_refused(host):
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "png")
    with pytest.raises(hostkit.PluginFailed, match="no picture that can be read"):
        host.execute("image", {"operation": "blur", "picture": file.getvalue()})


def test_it_is_healthy(host):
    assert host.health("image").status is hostkit.Status.HEALTHY
