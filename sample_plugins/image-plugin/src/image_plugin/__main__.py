"""``python -m image_plugin [FOLDER]``: render a picture, let the isolated plugin work on it, and write what comes back."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

import hostkit
from image_plugin import ImagePlugin, ImageRequest, ImageResponse
from image_plugin._scene import scene


def main() -> None:
    """Write five pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    pixels = scene()
    Image.fromarray(pixels).save(folder / "image-scene.png", optimize=True)
    with hostkit.Host("image-demo") as host:
        host.register(ImagePlugin, name="image", isolation="process")
        image = host.plugin("image", ImageRequest, ImageResponse)

        # Pixels in, pixels out.
        small = image.execute(ImageRequest(operation="resize", pixels=pixels, size=(320, 200)))
        blurred = image.execute(ImageRequest(operation="blur", pixels=pixels, radius=9))
        for name, answer in {"resized": small, "blurred": blurred}.items():
            assert answer.pixels is not None
            Image.fromarray(answer.pixels).save(folder / f"image-{name}.png", optimize=True)

        # A file in, a file out, and without types.
        told = host.execute("image", {"operation": "histogram", "picture": _png(pixels), "encode": "png"})
        (folder / "image-histogram.png").write_bytes(told["picture"])
        print(f"{told['counts'].sum(axis=1).tolist()} pixels counted in red, green and blue")


def _png(pixels: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


if __name__ == "__main__":
    main()
