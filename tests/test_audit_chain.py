"""The audit log's chain: whatever is done to one line is found, and at that line."""

from __future__ import annotations

import hashlib
import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hostkit._audit_chain import LINE_LIMIT, NOTHING, Head, Verification, entry_of, line_after, torn_facts

HOSTILE = '\n{"seq":1}\r\x1b[31m\u202eevil\u2028\ud800 [bold]x[/bold]'


def chain(count, *, head=NOTHING):
    lines = []
    for number in range(count):
        line, head = line_after(head, 1.9e9 + number, "loaded", f"p{number}", {"version": "1.0", "n": number})
        lines.append(line)
    return lines


def rewritten(line, **changes):
    """The line with other facts and a hash that fits them: what somebody does who knows the format."""
    data = {**json.loads(line), **changes}
    del data["hash"]
    body = json.dumps(data, separators=(",", ":")).encode()[:-1]
    return body + f',"hash":"{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def found(lines, head=None):
    return [(finding.line, finding.kind) for finding in Verification(head).findings(lines) if not finding.note]


CHAIN = chain(12)
HEAD = Verification()
assert list(HEAD.findings(CHAIN)) == []

lines_of = st.integers(0, len(CHAIN) - 1)


def test_a_chain_that_nobody_touched_has_no_findings():
    verification = Verification()
    assert list(verification.findings(CHAIN)) == []
    assert (verification.entries, verification.last.seq) == (12, 12)
    assert str(verification.last) == f"12:{json.loads(CHAIN[-1])['hash']}"


def test_an_empty_log_has_no_findings():
    assert found([]) == []


def test_a_line_can_be_checked_with_any_sha256():
    body, _, end = CHAIN[4].partition(b',"hash":"')
    assert end == hashlib.sha256(body).hexdigest().encode() + b'"}\n'
    assert json.loads(CHAIN[5])["prev"] == json.loads(CHAIN[4])["hash"]
    assert json.loads(CHAIN[0])["prev"] == "0" * 64


@given(lines_of, st.data())
def test_a_changed_byte_is_found_at_its_line(at, data):
    line = CHAIN[at]
    where = data.draw(st.integers(0, len(line) - 2))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte not in (line[where], 10)))
    changed = [*CHAIN[:at], line[:where] + bytes([other]) + line[where + 1 :], *CHAIN[at + 1 :]]
    assert found(changed) == [(at + 1, "truncated" if at == len(CHAIN) - 1 else "edited")]


@given(lines_of, st.data(), st.binary(min_size=1, max_size=30))
def test_bytes_put_into_a_line_are_found_at_it(at, data, put):
    line = CHAIN[at]
    where = data.draw(st.integers(0, len(line) - 1))
    text = b"".join([*CHAIN[:at], line[:where] + put + line[where:], *CHAIN[at + 1 :]])
    # An empty line before the line is the one thing that leaves the line as it was.
    assert found(split(text))[0][0] == at + 1


@given(lines_of, st.data())
def test_bytes_taken_out_of_a_line_are_found_at_it(at, data):
    line = CHAIN[at]
    begin = data.draw(st.integers(0, len(line) - 2))
    end = data.draw(st.integers(begin + 1, len(line) - 1))
    text = b"".join([*CHAIN[:at], line[:begin] + line[end:], *CHAIN[at + 1 :]])
    assert found(split(text))[0][0] == at + 1


@given(lines_of, st.integers(0, 5))
@example(len(CHAIN) - 1, 0)
def test_a_rewritten_line_with_a_hash_that_fits_is_found_at_it_by_the_next_one(at, how):
    changes = [{"version": "6.6"}, {"plugin": "other"}, {"at": "2020"}, {"kind": "x"}, {"prev": "1" * 64}, {"seq": 99}][how]
    changed = [*CHAIN[:at], rewritten(CHAIN[at], **changes), *CHAIN[at + 1 :]]
    if at < len(CHAIN) - 1 or how >= 4:
        # Of two last lines that don't fit together nobody can say which one it was.
        assert found(changed)[0][0] in ((at + 1,) if at < len(CHAIN) - 1 else (at, at + 1))
    else:  # the last one: no line tells of it, so only a remembered head can
        assert found(changed) == []
        assert found(changed, HEAD.last) == [(12, "head")]


@given(lines_of, st.integers(1, 4))
def test_lines_cut_out_are_found_where_they_stood(at, count):
    cut = [*CHAIN[:at], *CHAIN[at + count :]]
    if at + count >= len(CHAIN):
        assert found(cut) == []
        assert found(cut, HEAD.last) == [(len(cut), "head")]
    else:
        assert found(cut) == [(at + 1, "missing")]


@given(lines_of, lines_of)
def test_two_lines_that_changed_places_are_found(one, other):
    swapped = list(CHAIN)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    first = min(one, other) + 1
    assert found(swapped)[:1] == ([] if one == other else [(first, "missing")])


@given(lines_of, st.integers(0, len(CHAIN)))
def test_a_line_that_stands_there_twice_is_found(what, at):
    copied = [*CHAIN[:at], CHAIN[what], *CHAIN[at:]]
    told = found(copied)
    # Beside the original nobody can say which one is the copy; a copy ahead of its place is told where it stands.
    assert told[0][0] == (at + 2 if at == what else at + 1)


@given(
    st.integers(0, len(CHAIN)),
    st.sampled_from([b"junk\n", b"\n", b"{}\n", b"\xff\xfe\n", b'{"seq":3}\n', b"x" * (LINE_LIMIT + 5) + b"\n"]),
)
def test_a_line_put_in_is_found_at_it(at, line):
    assert [finding[0] for finding in found([*CHAIN[:at], line, *CHAIN[at:]])] == [at + 1]


@given(st.integers(0, len(CHAIN)))
def test_a_forged_line_that_follows_the_one_before_it_is_found_at_it(at):
    head = NOTHING if at == 0 else entry_of(CHAIN[at - 1].rstrip()).head
    forged, _ = line_after(head, 1.9e9, "loaded", "forged", {})
    told = found([*CHAIN[:at], forged, *CHAIN[at:]])
    if at == len(CHAIN):  # it is the last entry, as far as anybody can see
        assert told == []
    elif at == len(CHAIN) - 1:  # two last entries, one of which was forged
        assert told == [(at + 2, "inserted")]
    else:
        assert told == [(at + 1, "inserted")]


@given(st.integers(1, len(CHAIN)))
def test_a_forged_line_behind_the_real_one_is_found_too(at):
    before = NOTHING if at == 1 else entry_of(CHAIN[at - 2].rstrip()).head
    forged, _ = line_after(before, 1.9e9, "loaded", "forged", {})
    assert found([*CHAIN[:at], forged, *CHAIN[at:]]) == [(at + 1, "inserted")]


@given(lines_of, st.data())
def test_a_line_that_was_cut_off_is_found_at_it(at, data):
    rest = CHAIN[at][: data.draw(st.integers(1, len(CHAIN[at]) - 1))]
    assert found([*CHAIN[:at], rest]) == [(at + 1, "truncated")]


def test_a_remembered_head_finds_a_log_that_was_written_anew():
    anew = chain(12)
    anew[3:] = chain(9, head=Head(3, "0" * 64))
    assert found(CHAIN, HEAD.last) == found(CHAIN[:12], entry_of(CHAIN[6].rstrip()).head) == []
    other = [rewritten(CHAIN[0], plugin="other")]
    for line in CHAIN[1:]:
        other.append(rewritten(line, prev=json.loads(other[-1])["hash"]))
    assert found(other) == []  # nobody can tell
    assert found(other, HEAD.last) == [(12, "head")]


def test_another_chain_behind_the_first_one_is_one_finding():
    assert found([*CHAIN, *chain(5)]) == [(13, "restarted")]


def test_a_beginning_that_is_gone_is_found():
    assert found(CHAIN[4:]) == [(1, "missing")]


def test_a_torn_line_that_the_next_entry_tells_of_is_no_damage():
    torn = CHAIN[5][:40]
    news, head = line_after(entry_of(CHAIN[4].rstrip()).head, 1.9e9, "torn", "", torn_facts(torn))
    after, _ = line_after(head, 1.9e9, "loaded", "p", {})
    told = list(Verification().findings([*CHAIN[:5], torn + b"\n", news, after]))
    assert [(finding.line, finding.kind, finding.note) for finding in told] == [(6, "torn", True)]
    # ... and one that it doesn't tell of is.
    assert found([*CHAIN[:5], torn + b"x\n", news, after])[0] == (6, "edited")


@given(st.text(), st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
@example(HOSTILE, HOSTILE, [HOSTILE, {HOSTILE: HOSTILE}])
@example("p", "k", "x" * 10_000_000)
def test_whatever_an_entry_says_is_one_line_of_ascii_that_can_be_read(plugin, kind, value):
    line, _ = line_after(NOTHING, 1.9e9, kind, plugin, {"fact": value, "seq": 99, "prev": "forged"})
    assert line.endswith(b"\n")
    assert all(32 <= byte < 127 for byte in line[:-1])
    assert len(line) <= LINE_LIMIT
    entry = entry_of(line[:-1])
    assert entry is not None
    assert (entry.head.seq, entry.prev) == (1, NOTHING.hash)
    if len(plugin) <= 2000:
        assert entry.plugin == plugin


@pytest.mark.parametrize("text", ["", "12", "12:abc", ":" + "0" * 64, "x:" + "0" * 64, "1:" + "G" * 64, "-1:" + "0" * 64])
def test_a_head_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="expected SEQ:HASH"):
        Head.parsed(text)


def test_the_time_is_utc_to_the_microsecond():
    line, _ = line_after(NOTHING, 0.5, "k", "p", {})
    assert json.loads(line)["at"] == "1970-01-01T00:00:00.500000Z"


def split(text):
    return list(io.BytesIO(text))
