"""Sets of characters as ranges of code points, both ends included."""

import sys

Ranges = tuple[tuple[int, int], ...]  # in order, with gaps between them

LAST = sys.maxunicode
ALL: Ranges = ((0, LAST),)


def union(ranges: list[tuple[int, int]]) -> Ranges:
    found = list[tuple[int, int]]()
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def complement(ranges: Ranges) -> Ranges:
    ends = [-1, *(last for _, last in ranges)]
    starts = [*(first for first, _ in ranges), LAST + 1]
    return tuple((a + 1, b - 1) for a, b in zip(ends, starts, strict=True) if a + 1 < b)
