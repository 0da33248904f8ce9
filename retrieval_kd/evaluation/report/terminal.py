"""A grid in a terminal: folded where it is narrow, in several tables where folding is not enough.

No number is ever cut or broken, and names stand beside every part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrieval_kd.evaluation.report.grid import Grid

GAP = 2  # columns of the terminal between those of a table
NARROW, NARROWEST = 16, 8  # a column of names is folded to so much; to less if it must be


def print_grid(grid: Grid, console: Console | None = None) -> None:
    """Print a grid, whatever the terminal's width; names are text, never markup.

    Example:
        >>> from retrieval_kd.evaluation.report.grid import Cell
        >>> grid = Grid(["System", "A", "B"], [[Cell("bm25"), Cell("0.1234"), Cell("0.5678")]])
        >>> print_grid(grid, Console(width=18))                   # doctest: +NORMALIZE_WHITESPACE
        System       A
        ──────────────
        bm25    0.1234
        <BLANKLINE>
        System       B
        ──────────────
        bm25    0.5678
    """
    out = console or Console()
    parts = blocks(grid, out.width)
    for number, part in enumerate(parts, start=1):
        if number > 1:
            out.print()
        out.print(to_rich(replace(part, title=grid.title if number == 1 else ""), out.width))
    if grid.note:
        out.print()
        out.print(Text(grid.note, style="dim"))


def blocks(grid: Grid, width: int) -> list[Grid]:
    """The grid in parts that fit: each has the columns of names, and as many others as it can."""
    least = least_widths(grid, NARROW)
    if sum(least[: grid.left]) + max(least[grid.left :], default=0) + GAP * grid.left > width:
        least = least_widths(grid, NARROWEST)
    names = list(range(grid.left))
    taken, chosen, found = names, list[list[int]](), []
    for column in range(grid.left, len(grid.headers)):
        wide = sum(least[c] + GAP for c in [*taken, column]) - GAP
        if wide > width and len(taken) > len(names):
            chosen.append(taken)
            taken = names
        taken = [*taken, column]
    for columns in [*chosen, taken]:
        rows = [[row[c] for c in columns] for row in grid.rows]
        found.append(replace(grid, headers=[grid.headers[c] for c in columns], rows=rows))
    return found


def to_rich(grid: Grid, width: int) -> Table:
    """One table without its note; columns have room up to `width` beyond the least they need."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
        title=Text(grid.title) if grid.title else None,
        title_justify="left",
    )
    for number, (header, wide) in enumerate(zip(grid.headers, widths(grid, width), strict=True)):
        table.add_column(
            Text(folded(header, wide)),
            overflow="fold",
            width=wide,
            justify="left" if number < grid.left else "right",
        )
    for row in grid.rows:
        table.add_row(*(Text(cell.plain, style="bold" if cell.bold else "") for cell in row))
    return table


def widths(grid: Grid, width: int) -> list[int]:
    """Of each column: what it would like, as far as there is room; names come first."""
    least = least_widths(grid, NARROW)
    if sum(least) + GAP * (len(least) - 1) > width:
        least = least_widths(grid, NARROWEST)
    room = width - sum(least) - GAP * (len(least) - 1)
    found = []
    for number, header in enumerate(grid.headers):
        liked = max(cell_len(header), *_lengths(grid, number))
        more = min(max(room, 0), liked - least[number])
        room -= more
        found.append(least[number] + more)
    return found


def least_widths(grid: Grid, name: int) -> list[int]:
    """Of each column: its widest number and its heading's widest piece; of names at most `name`."""
    found = []
    for number, header in enumerate(grid.headers):
        piece = max(map(cell_len, _pieces(header)))
        wide = max(_lengths(grid, number))
        found.append(min(max(wide, piece), name) if number < grid.left else max(wide, piece))
    return found


def folded(header: str, width: int) -> str:
    """A heading in lines, broken at spaces and before @.

    Example:
        >>> folded("Recall@100", 6).splitlines(), folded("won/tied/lost", 9).splitlines()
        (['Recall', '@100'], ['won/tied/', 'lost'])
    """
    lines = [""]
    for piece in _pieces(header):
        joined = lines[-1] + piece
        if lines[-1] and cell_len(joined.rstrip()) > width:
            lines.append(piece)
        else:
            lines[-1] = joined
    return "\n".join(line.strip() for line in lines)


def _pieces(header: str) -> Sequence[str]:
    """Between which a heading may be broken."""
    return re.findall(r"@?[^\s@/]*[/\s]?", header)[:-1] or [header]


def _lengths(grid: Grid, number: int) -> list[int]:
    return [1, *(cell_len(row[number].plain) for row in grid.rows)]
