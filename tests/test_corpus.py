"""The files of tests/corpus: the verdict on each frame however it arrives, and no finding of the fuzzers comes back."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostkit._worker._frames import Assembler, FrameError, Truncated, packed

TESTS = Path(__file__).parent
CORPUS = TESTS / "corpus"
VERDICTS = json.loads((CORPUS / "frames" / "verdicts.json").read_text())


def pulled(pieces):
    """How a stream ends for somebody who reads the next frame, as a worker does: the frames, and the last word."""
    assembler, left, frames = Assembler(), list(pieces), []
    try:
        while (frame := assembler.receive(lambda most: take(left, most))) is not None:
            frames.append(frame)
    except FrameError as error:
        return frames, error
    return frames, None


def take(left, most):
    if not left:
        return b""
    piece = left.pop(0)
    if len(piece) > most:
        left.insert(0, piece[most:])
    return piece[:most]


def pushed(pieces):
    """The same for somebody who takes in what is there, as the host does."""
    assembler, frames = Assembler(), []
    try:
        for piece in pieces:
            assembler.feed(piece)
            while (frame := assembler.pop()) is not None:
                frames.append(frame)
    except FrameError as error:
        return frames, error
    return frames, Truncated("truncated") if assembler.partial else None


def cut_up(data):
    """Every way to cut it: whole, byte by byte, and in two at every place."""
    yield [data] if data else []
    yield [data[at : at + 1] for at in range(len(data))]
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]


@pytest.mark.parametrize("name", VERDICTS)
def test_a_stream_means_the_same_however_it_is_cut_and_read(name):
    data, verdict = (CORPUS / "frames" / name).read_bytes(), VERDICTS[name]
    for pieces in cut_up(data):
        for read in (pulled, pushed):
            frames, error = read(pieces)
            assert len(frames) == verdict["frames"]
            if verdict["ends"] == "clean":
                assert error is None
            elif verdict["ends"] == "truncated":
                assert type(error) is Truncated
            else:
                assert type(error) is FrameError
                assert verdict["ends"] in str(error)


@pytest.mark.parametrize("name", [name for name in VERDICTS if name.startswith("good/")])
def test_what_was_read_is_written_as_the_same_bytes(name):
    data = (CORPUS / "frames" / name).read_bytes()
    frames, _ = pulled([data] if data else [])
    assert b"".join(_packed(frame) for frame in frames) == data


def _packed(frame):
    return packed(
        frame.kind,
        frame.call_id,
        frame.payload,
        meta=frame.meta,
        buffers=frame.buffers,
        flags=frame.flags,
        timeout=frame.timeout,
    )


def test_the_files_are_those_that_the_generator_writes_and_each_has_its_verdict(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("corpus_make", CORPUS / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    monkeypatch.setattr(make, "HERE", tmp_path)
    make.main()
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {path.relative_to(CORPUS) for path in (CORPUS / "frames").rglob("*") if path.is_file()}
    assert kept == {path for path in made if path.parts[0] == "frames"}
    assert {f"frames/{name}" for name in VERDICTS} == {str(path) for path in kept if path.suffix != ".json"}
    for path in made:
        assert (tmp_path / path).read_bytes() == (CORPUS / path).read_bytes(), path


@pytest.mark.parametrize("target", ["answers", "frames", "requests"])
def test_no_input_that_was_ever_found_fails_again(target):
    # In a process of its own: a target turns the log on.
    run = subprocess.run(
        [sys.executable, TESTS / "fuzz" / "run.py", "--replay", target],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "no findings" in run.stdout
