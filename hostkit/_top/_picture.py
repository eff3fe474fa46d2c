"""The live view as a picture: what ``hostkit top`` shows of a host after some seconds, without a terminal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from ._app import Top
from ._feed import Asked

_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def picture(
    host: Asked, *, cells: tuple[int, int] = (120, 30), seconds: float = 5.0, keys: Sequence[str] = (), interval: float = 1.0
) -> str:
    """Return SVG text: the view in a terminal of so many columns and lines, watched for ``seconds``, then with ``keys`` pressed.

    Key names are textual's: ``"l"``, ``"enter"``, ``"down"``, ``"question_mark"``.
    """
    return asyncio.run(_taken(Top(host, interval=interval), cells, seconds, keys, interval))


async def _taken(top: Top, cells: tuple[int, int], seconds: float, keys: Sequence[str], interval: float) -> str:
    async with top.run_test(size=cells, notifications=True) as pilot:
        await pilot.pause(seconds)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(min(1.0, interval))  # for the host's answer
        # The fonts are somebody else's server's: whoever looks at the picture has one of a fixed width.
        return _FONTS.sub("", top.export_screenshot(title="hostkit top"))
