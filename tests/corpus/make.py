"""Write the corpus: frames with the verdict on each, and what the fuzz targets begin with. ``python tests/corpus/make.py``.

It knows the protocol from its table alone and imports nothing of hostkit, so that the files say what the wire format is even where
the code has changed. ``frames/verdicts.json`` says of each file of ``frames/`` which frames it holds and how it ends: ``clean``,
``truncated``, or ``refused`` with a word that the error has. What fuzzing finds is added to ``answers/``, ``requests/`` and here.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

HERE = Path(__file__).parent
HEADER = struct.Struct(">2sBBHHQdIII")
BOOT, READY, CALL, RESULT, ERROR, ITEM, END, PING, PONG, HEALTH, INFO, CLOSE, GOODBYE, CANCEL, MEMORY = range(1, 16)
CAP = 64 << 20


def frame(
    kind=RESULT,
    call_id=7,
    payload=b"",
    *,
    meta=b"",
    buffers=b"",
    flags=0,
    timeout=0.0,
    magic=b"hk",
    version=1,
    reserved=0,
    sizes=None,
):
    sizes = sizes or (len(meta), len(payload), len(buffers))
    return HEADER.pack(magic, version, kind, flags, reserved, call_id, timeout, *sizes) + meta + payload + buffers


ONE = frame(RESULT, 7, b'{"result":5.0}')
FAILED = b'{"type": "ValueError", "message": "no", "traceback": "Traceback", "phase": "execute", "retryable": false}'

# Name, bytes, how many frames, and how it ends.
GOOD = [
    ("nothing", b"", 0),
    ("a result", ONE, 1),
    ("a result without a payload", frame(), 1),
    ("a call", frame(CALL, 1, b'{"operation":"add","a":2,"b":3}', timeout=29.99), 1),
    ("a call with everything", frame(CALL, 2**64 - 1, b"{}", meta=b'{"headers":{}}', buffers=bytes(256), flags=3, timeout=0.5), 1),
    ("a call without a limit", frame(CALL, 1, b"null"), 1),
    ("a call that is nearly late", frame(CALL, 1, b"null", timeout=5e-324), 1),
    ("a call with a year", frame(CALL, 1, b"null", timeout=3e7), 1),
    ("a call with minus nothing", frame(CALL, 1, b"null", timeout=-0.0), 1),
    ("a typed call", frame(CALL, 1, b"null", flags=1), 1),
    ("a hook's call", frame(CALL, 1, b"null", flags=2, meta=b'{"hook":"f","arguments":[]}'), 1),
    ("an error", frame(ERROR, 7, meta=FAILED), 1),
    ("a stream", b"".join(frame(ITEM, 7, b"%d" % number) for number in range(20)) + frame(END, 7), 21),
    ("a stream that fails", frame(ITEM, 7, b"1") + frame(ERROR, 7, meta=FAILED), 2),
    ("answers to three calls", frame(RESULT, 1, b"1") + frame(ERROR, 2, meta=FAILED) + frame(RESULT, 3, b"3"), 3),
    ("a start", frame(BOOT, 0, meta=b'{"cookie":"c"}', buffers=b"\x80\x04N."), 1),
    ("a handshake", frame(READY, 0, meta=b'{"cookie":"c","protocol":1}'), 1),
    ("heartbeats", frame(PING, 0) * 3 + frame(PONG, 0) * 3, 6),
    ("questions", frame(HEALTH, 1) + frame(INFO, 2) + frame(CLOSE, 3) + frame(CANCEL, 99), 4),
    ("a word about memory", frame(MEMORY, 0, meta=b'{"freed":[1]}'), 1),
    ("a goodbye", frame(RESULT, 3, b"null") + frame(GOODBYE, 0), 2),
    ("a payload that looks like a frame", frame(RESULT, 7, ONE), 1),
    ("text of many bytes", frame(RESULT, 7, '"größer, 大きい, 😀"'.encode()), 1),
    ("more than one read", frame(RESULT, 7, b'"' + b"x" * 5000 + b'"') + ONE, 2),
    ("every kind", b"".join(frame(kind, kind) for kind in range(1, 16)), 15),
    # The assembler judges the frame, and whoever reads the payload judges that.
    ("a payload that is no JSON", frame(RESULT, 7, b"\x80\x04\x95 a pickle"), 1),
]
# How it ends: "truncated", or a word of the refusal.
BAD = [
    ("one byte", b"h", 0, "truncated"),
    ("half a magic of something else", b"x", 0, "truncated"),
    ("a header without its last byte", ONE[:35], 0, "truncated"),
    ("a header without a body", ONE[:36], 0, "truncated"),
    ("a body without its last byte", ONE[:-1], 0, "truncated"),
    ("a result and half of another", ONE + ONE[:40], 1, "truncated"),
    ("meta cut off", frame(ERROR, 7, meta=FAILED)[:60], 0, "truncated"),
    ("buffers cut off", frame(BOOT, 0, meta=b"{}", buffers=b"x" * 100)[:-50], 0, "truncated"),
    ("as large as allowed and not there", frame(sizes=(0, CAP - 36, 0)), 0, "truncated"),
    ("HTTP", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, "not a frame"),
    ("a traceback", b"Traceback (most recent call last):\n  File 'x', line 1", 0, "not a frame"),
    (
        "a pickle",
        b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
        0,
        "not a frame",
    ),
    ("zeros", bytes(64), 0, "not a frame"),
    ("ones", b"\xff" * 64, 0, "not a frame"),
    ("JSON", b'{"jsonrpc": "2.0", "result": 5.0, "id": 7}', 0, "not a frame"),
    ("another case", frame(magic=b"HK"), 0, "not a frame"),
    ("the magic turned round", frame(magic=b"kh"), 0, "not a frame"),
    ("a line end before a frame", b"\n" + ONE, 0, "not a frame"),
    ("garbage behind a result", ONE + b"garbage" * 6, 1, "not a frame"),
    ("a result one byte too long", ONE + b"\n" + ONE, 1, "not a frame"),
    ("a length one too small", frame(payload=b"12345", sizes=(0, 4, 0)) + ONE, 1, "not a frame"),
    ("version 0", frame(version=0), 0, "version 0"),
    ("version 2", frame(version=2), 0, "version 2"),
    ("version 255", frame(version=255), 0, "version 255"),
    ("kind 0", frame(0), 0, "kind of frame 0"),
    ("kind 16", frame(16), 0, "kind of frame 16"),
    ("kind 255", frame(255), 0, "kind of frame 255"),
    ("flag 4", frame(CALL, flags=4), 0, "reserved bits"),
    ("all flags", frame(CALL, flags=0xFFFF), 0, "reserved bits"),
    ("reserved 1", frame(reserved=1), 0, "reserved bits"),
    ("reserved all", frame(reserved=0xFFFF), 0, "reserved bits"),
    ("a result with a flag", frame(RESULT, flags=1), 0, "only a call"),
    ("a heartbeat with a timeout", frame(PING, timeout=1.0), 0, "only a call"),
    ("an item with a timeout that is none", frame(ITEM, timeout=float("nan")), 0, "only a call"),
    ("a timeout below nothing", frame(CALL, timeout=-1e-300), 0, "timeout of"),
    ("a timeout without end", frame(CALL, timeout=float("inf")), 0, "timeout of"),
    ("a timeout that is none", frame(CALL, timeout=float("nan")), 0, "timeout of"),
    ("one byte over the limit", frame(sizes=(0, CAP - 35, 0)), 0, "over the limit"),
    ("a huge payload", frame(sizes=(0, 0xFFFFFFFF, 0)), 0, "over the limit"),
    ("huge meta", frame(ERROR, sizes=(0xFFFFFFFF, 0, 0)), 0, "over the limit"),
    ("huge buffers", frame(sizes=(0, 0, 0xFFFFFFFF)), 0, "over the limit"),
    ("huge in all", frame(sizes=(0xFFFFFFFF,) * 3), 0, "over the limit"),
    ("lengths that wrap around to nothing", frame(sizes=(0x80000000, 0x80000000, 0)), 0, "over the limit"),
    ("lengths that wrap around to a little", frame(sizes=(0xFFFFFFFF, 1, 16)) + bytes(16), 0, "over the limit"),
    ("lengths that are negative", frame(sizes=(0, 0xFFFFFFFE, 0)), 0, "over the limit"),
    ("lengths of the other end", ONE[:24] + struct.pack("<III", 0, 14, 0) + ONE[36:], 0, "over the limit"),
]

HOOK = '{"name":"f","function":"f","options":{},"arguments":["a"],"optional":[],"untyped":[],"trouble":""}'
HANDSHAKE = '{"cookie":"cookie","protocol":1,"plugin":"fuzzed","python":"3.11","kind":"sync","hooks":{"f":%s}}' % HOOK
STATUS = '{"status":"healthy","message":"fine","last_check":1.0,"response_time":0.1,"metadata":{"a":[1,null]}}'
ABOUT = '{"name":"n","version":"1","description":"d","author":"a","capabilities":["x"],"metadata":{"a":1}}'
RECORD = '{"level":30,"text":"a record","logger":"l","request_id":"r"}\n{"stream":"stderr","text":"last words"}\nno record\n'

# By the first byte: which words they are (WORDS of fuzz_answers.py).
ANSWERS = [
    ("error", 0, FAILED),
    ("error of data", 0, b'{"phase":"response","rows":[{"path":"a.0","expected":"text","found":"3"}]}'),
    ("error of memory", 0, b'{"type": "MemoryError", "message": "", "memory": true}'),
    ("error of memory with a foreign message", 0, b'{"memory": true, "message": {"a": "\\ud800"}}'),
    ("error of a cancelled call", 0, b'{"cancelled": true, "message": "\\ud800 is no text", "retryable": 1}'),
    ("error of every wrong type", 0, b'{"type": [], "message": 3, "rows": 7, "phase": {}, "traceback": null}'),
    ("load failure", 1, b'{"kind":"import","text":"importing m raised","type":"ImportError","traceback":"T"}'),
    ("handshake", 2, HANDSHAKE.encode()),
    ("handshake with one argument twice", 2, HANDSHAKE.replace('"optional":[]', '"optional":["a"]').encode()),
    ("handshake with a keyword as argument", 2, HANDSHAKE.replace('["a"]', '["lambda"]').encode()),
    ("handshake with an argument that can't be one", 2, HANDSHAKE.replace('["a"]', '["__debug__"]').encode()),
    ("handshake with two names that are one", 2, HANDSHAKE.replace('["a"]', '["K", "\u212a"]').encode()),
    ("handshake with a long cookie", 2, HANDSHAKE.replace('"cookie",', f'"{"x" * 5000}",').encode()),
    ("handshake with a long key", 2, HANDSHAKE.replace('"kind"', f'"{"x" * 5000}":1,"kind"').encode()),
    ("health", 3, STATUS.encode()),
    ("health with a message that is none", 3, STATUS.replace('"fine"', "[1]").encode()),
    ("health with metadata of pairs", 3, STATUS.replace('{"a":[1,null]}', '[["a",1]]').encode()),
    ("health never checked", 3, STATUS.replace("1.0", "NaN").encode()),
    ("health beyond numbers", 3, STATUS.replace("[1,null]", "1e999").encode()),
    ("health with a long status", 3, STATUS.replace("healthy", "x" * 5000).encode()),
    ("info", 4, ABOUT.encode()),
    ("info without words", 4, b"{}"),
    ("info with one capability", 4, ABOUT.replace('["x"]', '"x"').encode()),
    ("info with a number as name", 4, ABOUT.replace('"n"', "3").encode()),
    ("info with metadata of a list", 4, ABOUT.replace('{"a":1}', "[1]").encode()),
    ("log", 5, RECORD.encode()),
    ("log of wrong types", 5, b'{"level":1e400,"text":[[]]}\n{"level":"x","text":""}\n[]\n3\n{"text":{}}\n'),
    (
        "log that forges and paints",
        5,
        b'{"level":20,"text":"a\\n2026-01-01 CRITICAL b\\r\\u001b[31m\\u202e\\ud800","logger":"\\u0000"}\n',
    ),
    ("output", 6, b"first\r\n\x1b[31mred\n\xff\xfe no text\nhalf a line"),
    ("result", 7, b'{"x":1,"y":0.5,"names":["a"],"next":{"x":2}}'),
    ("result in a box", 7, b'{"label":"a","size":1,"inside":{"b":{"label":"c","size":2,"inside":{}}}}'),
    ("result that is deep", 7, b"[" * 3000 + b"]" * 3000),
    ("result without end", 7, b'[1e999,-1e999,{"a":' + b"9" * 400 + b"}]"),
    ("result of a half character", 7, b'{"label":"\\ud800","size":NaN}'),
    ("result with half a character as key", 7, b'{"label":"a","size":1,"inside":{"b\\ud8de":{"\\ud800":{}}}}'),
    ("channel", 8, frame(ITEM, 7, b"1") + frame(RESULT, 7, b"2")),
    ("channel with buffers", 8, frame(RESULT, 7, b"1", meta=b'{"buffers":[[0,0,4]]}', buffers=b"1234")),
    ("channel with buffers elsewhere", 8, frame(RESULT, 7, b"1", meta=b'{"buffers":[[3,0,4]],"freed":[9]}')),
    ("memory", 10, b'{"freed":[1],"dropped":[2],"need":4096}'),
    ("memory without sense", 10, b'{"freed":{"a":[]},"dropped":null,"need":1e400,"buffers":[[[]]]}'),
    ("memory beyond any", 10, b'{"need":18446744073709551616,"buffers":[[0,-1,9223372036854775807]]}'),
    ("channel of another", 8, frame(RESULT, 8, b"2")),
    ("channel cut off", 8, ONE + ONE[:30]),
    ("control", 9, frame(RESULT, 1, STATUS.encode())),
    ("control with another kind of answer", 9, frame(ITEM, 1, STATUS.encode())),
    ("control with an answer too many", 9, frame(RESULT, 1) * 2),
    ("control cut off", 9, frame(RESULT, 1)[:20]),
]

# By the first byte: which type (twice TYPES of fuzz_requests.py: strict, tolerant).
THINGS = (
    b'{"name":"n","colour":"red","inner":{"count":1,"ratio":null},"many":[{"count":2}],"tags":["a"],"by_number":{"1":"x"},'
    b'"pair":[1,"b"],"movie":{"title":"t","year":1},"choice":"a","at":"2026-01-02T03:04:05+00:00",'
    b'"who":"12345678-1234-5678-1234-567812345678","price":"1.5","place":"/tmp","either":[1]}'
)
REQUESTS = [
    ("everything", 0, THINGS),
    ("everything tolerant", 1, THINGS[:-1] + b',"more":1}'),
    ("item", 2, b'{"name":"n","price":1,"tags":["a"],"parts":[{"name":"m"}],"colour":2}'),
    ("left and right", 4, b'{"child":{"child":{"child":null,"right":1}},"left":2}'),
    ("left and right without end", 4, b'{"child":' * 60 + b"3" + b"}" * 60),
    ("movie", 6, b'{"title":"t","year":1}'),
    ("list", 8, b'[{"count":1},{"count":2,"ratio":1e3}]'),
    ("numbers as keys", 10, b'{"1.5":2,"-1e3":4}'),
    ("tuples in a set", 18, b'[[1,"a"],[2,"b"]]'),
    ("one of many", 20, b"true"),
    ("half characters", 24, b'{"a":"\\ud83d\\ude00","\\ud83d":1}'),
    ("half a character as key", 24, b'{"\\ud800a":"\\udde00","\\ud83d":1}'),
    ("constants", 24, b'{"a":NaN,"b":-Infinity}'),
    ("long numbers", 24, b'{"a":' + b"1" * 4400 + b',"b":1e400}'),
    ("deep", 24, b'{"a":' * 2000 + b"1" + b"}" * 2000),
    ("twice", 24, b'{"a":1,"a":2}'),
    ("space and marks", 24, b'\xef\xbb\xbf {"a": 1}\n '),
]


def main() -> None:
    verdicts = {}
    for name, data, count in GOOD:
        verdicts[f"good/{name}"] = {"frames": count, "ends": "clean"}
        _write(f"frames/good/{name}", data)
    for name, data, count, end in BAD:
        verdicts[f"bad/{name}"] = {"frames": count, "ends": end}
        _write(f"frames/bad/{name}", data)
    table = ",\n".join(f" {json.dumps(name)}: {json.dumps(verdict)}" for name, verdict in verdicts.items())
    _write("frames/verdicts.json", f"{{\n{table}\n}}\n".encode())
    for where, words in (("answers", ANSWERS), ("requests", REQUESTS)):
        for name, selector, data in words:
            _write(f"{where}/{name}", bytes([selector]) + data)


def _write(name: str, data: bytes) -> None:
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    main()
