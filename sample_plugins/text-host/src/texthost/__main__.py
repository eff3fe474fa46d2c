"""``texthost "some text" [--isolation none|process] [--set KEY=VALUE]``"""

from __future__ import annotations

import argparse
import sys

from loguru import logger

from . import configure, load_all, open_host, scored, transformed


def main(arguments: list[str] | None = None) -> int:
    """Print what the plugins make of a text; return 1 where one of them couldn't be loaded."""
    asked = _parser().parse_args(arguments)
    logger.remove()
    logger.add(sys.stderr, level="WARNING", format="{message}")
    logger.enable("hostkit")
    with open_host() as host:
        errors = load_all(host, isolation=asked.isolation)
        for error in errors.values():
            print(f"texthost: {error}", file=sys.stderr)
        configure(host, dict(asked.set))
        for text in transformed(host, asked.text):
            print(text)
        print(f"score: {scored(host, asked.text)}")
    return 1 if errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("texthost", description="Ask every plugin to rewrite a text, and one of them to score it.")
    parser.add_argument("text")
    parser.add_argument("--isolation", choices=("none", "process"), help="where all plugins run; without it, where each asks to")
    parser.add_argument("--set", metavar="KEY=VALUE", type=_pair, action="append", default=[], help="a setting for the plugins")
    return parser


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found {text!r}")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
