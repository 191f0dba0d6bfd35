"""The table of bodies, and its documentation page."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

__all__ = ["Row", "load", "save", "table", "write"]


_LARGE = 500_000
"""Bytes. Smaller bodies do not allow a statement about memory."""


class Row(msgspec.Struct):
    """One shape in one size on one request path: seconds, bytes, and the response status.

    `gap` is the largest gap between two ticks by the clock, `work` by the CPU time of the loop.
    """

    shape: str
    megabytes: int
    way: str
    gap: float
    work: float
    memory: float
    size: int
    status: int
    seconds: float

    @classmethod
    def of(cls, shape: str, megabytes: int, way: str, rounds: Sequence[dict[str, float]]) -> "Row":
        """Return the best of several rounds, since other load on the machine only adds to the
        figures."""
        return cls(
            shape,
            megabytes,
            way,
            min(each["gap"] for each in rounds),
            min(each["work"] for each in rounds),
            min(each["memory"] for each in rounds),
            int(rounds[0]["size"]),
            int(rounds[-1]["status"]),
            min(each["seconds"] for each in rounds),
        )

    def text(self) -> str:
        """Format the row for a terminal."""
        return (
            f"{self.shape:<34} {self.megabytes:>3} MB  {self.way:<9}  {self.gap * 1000:8.1f} ms "
            f"({self.work * 1000:.1f})  {self.memory / self.size:5.2f}x  {self.status}  "
            f"{self.seconds:.2f} s"
        )


def save(path: Path, rows: Sequence[Row]) -> None:
    """Save all figures."""
    path.write_bytes(msgspec.json.encode(rows))


def load(path: Path) -> list[Row]:
    """Load saved figures."""
    return msgspec.json.decode(path.read_bytes(), type=list[Row])


def _by_shape(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.shape, row.megabytes), []).append(row)
    return groups


def _cells(rows: Sequence[Row]) -> list[str]:
    """Return the worse figures of both request paths."""
    if not rows:
        return ["", "", "", ""]
    large = max(row.size for row in rows) > _LARGE
    return [
        f"{max(row.gap for row in rows) * 1000:.0f}",
        f"{max(row.work for row in rows) * 1000:.0f}",
        f"{max(row.memory / row.size for row in rows):.1f}" if large else "",
        "/".join(str(status) for status in sorted({row.status for row in rows})),
    ]


def table(rows: Sequence[Row], before: Sequence[Row] = ()) -> str:
    """Return the Markdown table, with the earlier figures beside it if known."""
    known = _by_shape(before)
    head = ["body", "MB", "stall, ms", "of it CPU", "memory ÷ body", "status"]
    if before:
        head += ["before: stall, ms", "of it CPU", "memory ÷ body", "status"]
    lines = [head, ["---", *["--:" for _ in head[1:]]]]
    for (shape, megabytes), found in _by_shape(rows).items():
        line = [shape, str(megabytes), *_cells(found)]
        if before:
            line += _cells(known.get((shape, megabytes), []))
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_PAGE = """\
# The cost of one request body

Written by `make bench-bodies`. A router runs in a separate process, in front of a node that \
accepts every body, on two shared cores. One request has the body. *stall* is the largest gap of \
a 1 ms ticker in the router's event loop meanwhile. *of it CPU* is the most CPU time that the \
loop's thread used between two ticks: the stall on an otherwise idle machine. *memory ÷ body* is \
the peak of the router's memory above its level before, the body included. Each figure is the \
worse of both entrances (the fast path and aiohttp) and the best of {rounds}.

The goal: no body of 10 MB stalls the loop for more than 50 ms, no body of 100 MB for more than \
150 ms, and no body takes more than three times its length. \
[ARCHITECTURE.md](../ARCHITECTURE.md#requests-and-bodies) explains how. Status 400 is a body that \
contains more than any request needs or is not JSON, 413 a body over the limit of its \
path.{compared}

{table}
"""
_COMPARED = """ *Before* are the figures of the previous parsers: they decoded whole values, \
called Python for each surrogate, and read a long body in one go. An empty cell means that the \
body was not sent: it would have taken half a minute and 7 GB."""


def write(folder: Path, rows: Sequence[Row], before: Sequence[Row], *, rounds: int) -> None:
    """Write the page."""
    page = _PAGE.format(
        rounds=f"{rounds} rounds" if rounds > 1 else "one round",
        compared=_COMPARED if before else "",
        table=table(rows, before),
    )
    (folder / "bodies-benchmark.md").write_text(page)
