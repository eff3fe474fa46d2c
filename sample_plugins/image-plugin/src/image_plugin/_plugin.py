"""The plugin itself: Pillow does the work."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageFilter

from hostkit import ExecutionContext, HealthStatus, Plugin, Status, empty_array
from image_plugin._messages import Format, ImageRequest, ImageResponse
from image_plugin._plot import histogram_plot


class ImagePlugin(Plugin[ImageRequest, ImageResponse]):
    """Resizes and blurs pictures, and counts their colours."""

    def execute(self, ctx: ExecutionContext, request: ImageRequest) -> ImageResponse:
        picture = _opened(request)
        ctx.raise_if_cancelled()
        if request.operation == "histogram":
            counts = np.array(picture.histogram(), dtype="int64").reshape(3, 256)
            return _answer(histogram_plot(counts), request.encode, counts)
        if request.operation == "resize":
            assert request.size is not None  # the request's own validator saw to it
            return _answer(picture.resize(request.size, Image.Resampling.LANCZOS), request.encode)
        return _answer(picture.filter(ImageFilter.GaussianBlur(request.radius)), request.encode)

    def health(self) -> HealthStatus:
        return HealthStatus(Status.HEALTHY, "ready", metadata={"formats": ["png", "jpeg"]})


def _opened(request: ImageRequest) -> Image.Image:
    if request.pixels is not None:
        # No copy: Pillow reads where the host wrote.
        height, width, _ = request.pixels.shape
        return Image.frombuffer("RGB", (width, height), np.ascontiguousarray(request.pixels), "raw", "RGB", 0, 1)
    assert request.picture is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(request.picture), formats=["PNG", "JPEG"]) as picture:
                return picture.convert("RGB")
        except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"no picture that can be read: {error}") from error


def _answer(picture: Image.Image, encode: Format | None, counts: np.ndarray | None = None) -> ImageResponse:
    if encode is not None:
        file = io.BytesIO()
        picture.save(file, encode)
        return ImageResponse(width=picture.width, height=picture.height, picture=file.getbuffer(), counts=counts)
    # Written once, straight to where the host reads.
    pixels = empty_array((picture.height, picture.width, 3), "uint8")
    pixels[:] = np.asarray(picture)
    return ImageResponse(width=picture.width, height=picture.height, pixels=pixels, counts=counts)
