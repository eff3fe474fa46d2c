"""Assemble the programs of seccomp: which system call ends in which answer, as a search among ranges of numbers.

A program is a list of instructions ``(code, jump if true, jump if false, constant)``, see linux/filter.h. Descriptors, commands
and process ids are 32 bits wide in the kernel, which ignores what stands above: for those only the low half is compared. Where a
whole word counts, as with a pointer, both are.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Program = list[tuple[int, int, int, int]]

_LOAD, _AND, _JUMP, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # struct seccomp_data
_RET_KILL_PROCESS, _RET_TRAP, _RET_ERRNO, _RET_ALLOW = 0x80000000, 0x00030000, 0x00050000, 0x7FFF0000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# On x86_64, numbers from here on are those of x32.
_X32 = 0x40000000

ALLOW: Program = [(_RETURN, 0, 0, _RET_ALLOW)]
KILL: Program = [(_RETURN, 0, 0, _RET_KILL_PROCESS)]
# The signal SIGSYS, whose handler writes the stack. Nobody gets past it: the call isn't made.
TRAP: Program = [(_RETURN, 0, 0, _RET_TRAP)]


def fail(errno: int) -> Program:
    """Answer with an error number."""
    return [(_RETURN, 0, 0, _RET_ERRNO | errno)]


def if_one_of(argument: int, values: Iterable[int], then: Program, otherwise: Program, *, mask: int = 0xFFFFFFFF) -> Program:
    """Go on with ``then`` where the low half of the argument, of which only the bits of ``mask`` count, is one of ``values``."""
    program = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument)]
    if mask != 0xFFFFFFFF:
        program.append((_AND, 0, 0, mask))
    for value in values:
        program.append((_IF_EQUAL, 0, len(then), value))
        program += then
    return program + otherwise


def if_null(argument: int, then: Program, otherwise: Program) -> Program:
    """Go on with ``then`` where all 64 bits of the argument are zero."""
    low = if_one_of(argument, [0], then, otherwise)
    return [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4), (_IF_EQUAL, 0, len(low), 0), *low, *otherwise]


def by_number(machine: str, answers: Mapping[int, Program], *, otherwise: Program, last: int, later: Program) -> Program:
    """Answer each system call: by its number, ``otherwise`` up to the number ``last``, ``later`` from there on. What was compiled
    for another machine, or for x32, is trapped."""
    starts: list[tuple[int, Program]] = [(0, otherwise)]
    for number in sorted(answers):
        if starts[-1][0] == number:
            starts.pop()
        if not starts or starts[-1][1] is not answers[number]:
            starts.append((number, answers[number]))
        starts.append((number + 1, otherwise))
    if starts[-1][0] == last + 1:
        starts.pop()
    starts.append((last + 1, later))
    if machine == "x86_64":
        starts.append((_X32, TRAP))
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, len(TRAP), 0, _ARCHITECTURES[machine]),
        *TRAP,
        (_LOAD, 0, 0, _NUMBER),
        *_search(starts),
    ]


def _search(starts: list[tuple[int, Program]]) -> Program:
    if len(starts) == 1:
        return starts[0][1]
    middle = len(starts) // 2
    below, above = _search(starts[:middle]), _search(starts[middle:])
    if len(below) < 256:
        return [(_IF_AT_LEAST, len(below), 0, starts[middle][0]), *below, *above]
    # A conditional jump reaches 255 instructions.
    return [(_IF_AT_LEAST, 0, 1, starts[middle][0]), (_JUMP, 0, 0, len(below)), *below, *above]


def assembled(program: Program) -> bytearray:
    """Return the program as the kernel reads it."""
    return bytearray(struct.pack("=" + "HBBI" * len(program), *[field for instruction in program for field in instruction]))
