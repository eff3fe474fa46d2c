"""Counting calls and their seconds."""

import math
import statistics
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostkit._meter import BOUNDS, Meter, Reading, between, quantile

SECONDS = st.floats(1e-7, 79.0)


def test_the_bounds_are_ten_a_decade_and_have_those_that_dashboards_use() -> None:
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert (BOUNDS[0], BOUNDS[-1], len(BOUNDS)) == (1e-6, 80.0, 80)
    assert {float(f"{mantissa}e{exponent}") for mantissa in (1, 2.5, 5) for exponent in range(-6, 2)} <= set(BOUNDS)


def test_calls_are_counted_by_how_they_ended() -> None:
    meter = Meter()
    for outcome, seconds in [("ok", 1e-6), ("ok", 1.1e-6), ("Busy", 1000.0)]:
        meter.add(outcome, seconds)
    reading = meter.reading()
    assert reading.outcomes == {"ok": 2, "Busy": 1}
    assert reading.calls == sum(reading.buckets) == 3
    assert (reading.buckets[0], reading.buckets[1], reading.buckets[-1]) == (1, 1, 1)
    assert reading.seconds == pytest.approx(1000.0000021)


def test_threads_lose_no_call() -> None:
    meter = Meter()

    def add() -> None:
        for _ in range(5000):
            meter.add("ok", 0.001)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.reading().calls == sum(meter.reading().buckets) == 40_000


@given(st.lists(SECONDS, min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_is_known_to_the_width_of_a_bucket(seconds: list[float], share: float) -> None:
    meter = Meter()
    for each in seconds:
        meter.add("ok", each)
    found = quantile(meter.reading().buckets, share)
    exact = sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]
    assert found is not None
    assert found == pytest.approx(exact, rel=0.27, abs=1e-6)


def test_a_quantile_of_nothing_is_not_known() -> None:
    assert quantile([0] * 81, 0.99) is None


@given(st.lists(SECONDS), st.lists(SECONDS, min_size=1))
def test_the_difference_of_two_readings_is_what_came_in_between(first: list[float], second: list[float]) -> None:
    meter, alone = Meter(), Meter()
    for each in first:
        meter.add("ok", each)
    before = meter.reading()
    for each in second:
        meter.add("Busy", each)
        alone.add("Busy", each)
    found = between(before, meter.reading())
    assert found.buckets == alone.reading().buckets
    assert (found.outcomes["ok"], found.outcomes["Busy"]) == (0, len(second))
    assert found.seconds == pytest.approx(statistics.fsum(second), abs=1e-6)


def test_counting_that_began_anew_is_taken_as_it_is() -> None:
    anew = Reading({"ok": 1}, 0.1, (1, *[0] * 80))
    assert between(Reading({"ok": 5}, 0.5, (5, *[0] * 80)), anew) == anew
    assert between(None, anew) == anew
