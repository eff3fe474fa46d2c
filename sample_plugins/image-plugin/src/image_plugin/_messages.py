"""What is asked of the plugin, and what it answers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hostkit import Array, Blob

Side = Annotated[int, Field(ge=1, le=20_000)]
Format = Literal["png", "jpeg"]


class ImageRequest(BaseModel):
    """One picture and what to do with it: ``pixels`` are rows of red, green and blue, ``picture`` a PNG or JPEG file."""

    model_config = ConfigDict(extra="forbid")

    operation: Literal["resize", "blur", "histogram"]
    pixels: Array[np.uint8] | None = None
    picture: Blob | None = None
    size: tuple[Side, Side] | None = None
    radius: Annotated[float, Field(gt=0, le=1000)] = 4.0
    encode: Format | None = None

    @model_validator(mode="after")
    def _one_picture(self) -> Self:
        if (self.pixels is None) is (self.picture is None):
            raise ValueError("either pixels or a picture")
        if self.pixels is not None and (self.pixels.ndim != 3 or self.pixels.shape[2] != 3 or 0 in self.pixels.shape):
            raise ValueError("pixels of height, width and 3 colours")
        if self.operation == "resize" and self.size is None:
            raise ValueError("a size, as [width, height], to resize to")
        return self


class ImageResponse(BaseModel):
    """The picture that came of it, as ``pixels`` or, where a format was asked for, as a file; a histogram also has its counts,
    one row of 256 for each of red, green and blue."""

    width: int
    height: int
    pixels: Array[np.uint8] | None = None
    picture: Blob | None = None
    counts: Array[np.int64] | None = None
