"""Pictures as a hostkit plugin: pixels and files cross to the worker in shared memory, not as JSON."""

from __future__ import annotations

from image_plugin._messages import ImageRequest, ImageResponse
from image_plugin._plugin import ImagePlugin

__all__ = ["ImagePlugin", "ImageRequest", "ImageResponse"]
