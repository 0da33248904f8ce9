"""A table as plain cells, and its three forms: Markdown, LaTeX and a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrieval_kd.progress import Screen

LETTERS = "abcdefghijklmnoprstuvwxyz"  # Unicode has no superscript q
SUPERSCRIPT = dict(zip(LETTERS, "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ", strict=True))
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$",
    ">": r"$>$", "±": r"$\pm$", "−": "$-$", "–": "--", "×": r"$\times$", "\u202f": r"\,",
}  # fmt: skip
FROM_SUPERSCRIPT = {mark: letter for letter, mark in SUPERSCRIPT.items()}
GAP = 2  # spaces between the columns of a terminal table
NARROW, NARROWEST = 16, 8  # a column of names is folded to this width, or to the second if it must


@dataclass(frozen=True)
class Cell:
    """A number or a name, with superscript letters, an addition, and whether it is bold.

    Only HTML pages show `details`, below the text, and sort by `value`.
    """

    text: str
    marks: str = ""
    after: str = ""  # such as the spread over seeds
    bold: bool = False
    value: float | None = None
    details: Sequence[str] = ()

    @property
    def plain(self) -> str:
        return self.text + "".join(SUPERSCRIPT.get(m, "") for m in self.marks) + self.after


@dataclass(frozen=True)
class Grid:
    """Headings, rows of cells (the first `left` columns are text), and a note below.

    Example:
        >>> grid = Grid(["System", "MRR@10"], [[Cell("a_b"), Cell("0.5", "a", bold=True)]], "2 <3")
        >>> print(to_markdown(grid))
        | System | MRR@10 |
        |---|---:|
        | a_b | **0.5ᵃ** |
        <BLANKLINE>
        2 <3
        >>> print(to_latex(grid))
        % needs \\usepackage{booktabs}
        \\begin{tabular}{lr}
        \\toprule
        System & MRR@10 \\\\
        \\midrule
        a\\_b & \\textbf{0.5}$^{a}$ \\\\
        \\bottomrule
        \\end{tabular}
        % 2 <3
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    left: int = 1
    title: str = ""

    def columns(self, numbers: Sequence[int]) -> Grid:
        """Return the grid with these columns only."""
        rows = [[row[n] for n in numbers] for row in self.rows]
        return replace(self, headers=[self.headers[n] for n in numbers], rows=rows)


def to_markdown(grid: Grid) -> str:
    """Write a grid for a README or a page of documentation."""
    lines = [
        f"| {' | '.join(map(_markdown, grid.headers))} |",
        "|" + "---|" * grid.left + "---:|" * (len(grid.headers) - grid.left),
    ]
    for row in grid.rows:
        cells = [f"**{_markdown(c.plain)}**" if c.bold else _markdown(c.plain) for c in row]
        lines.append(f"| {' | '.join(cells)} |")
    head = [f"**{_markdown(grid.title)}**", ""] if grid.title else []
    return "\n".join([*head, *lines, *(["", _without_tags(grid.note)] if grid.note else [])])


def _markdown(text: str) -> str:
    """Escape what would end the cell or be read as HTML."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return _without_tags(text)


def _without_tags(text: str) -> str:
    """Escape what would begin an HTML tag; `p < .05` stays."""
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", text)


def to_latex(grid: Grid) -> str:
    """Write a `tabular` with booktabs' rules; the note becomes a comment, for the caption."""
    columns = "l" * grid.left + "r" * (len(grid.headers) - grid.left)
    lines = [
        "% needs \\usepackage{booktabs}",
        *([f"% {_comment(grid.title)}"] if grid.title else []),
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(map(_latex, grid.headers)) + r" \\",
        "\\midrule",
        *(" & ".join(map(_latex_cell, row)) + r" \\" for row in grid.rows),
        "\\bottomrule",
        "\\end{tabular}",
        *([f"% {_comment(grid.note)}"] if grid.note else []),
    ]
    return "\n".join(lines)


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in re.sub("[ \t\r\n]+", " ", text))


def _latex_cell(cell: Cell) -> str:
    text = f"\\textbf{{{_latex(cell.text)}}}" if cell.bold else _latex(cell.text)
    return text + (f"$^{{{cell.marks}}}$" if cell.marks else "") + _latex(cell.after)


def _comment(text: str) -> str:
    """Join lines, and write superscripts as `^a`, so that the comment is safe in any encoding."""
    raised = "".join(f"^{FROM_SUPERSCRIPT[c]}" if c in FROM_SUPERSCRIPT else c for c in text)
    return re.sub(r"\s+", " ", raised)


def print_grid(grid: Grid, console: Console | None = None) -> None:
    """Print a grid in a terminal of any width.

    Where there is too little room, names and headings are folded, and then the grid is split into
    several tables that each repeat the names. Numbers are never cut; names are never markup.

    Example:
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
    out = console or Screen()
    minimums = _minimum_widths(grid, out.width)
    for number, columns in enumerate(_parts(grid.left, minimums, out.width)):
        if number:
            out.print()
        part = replace(grid.columns(columns), title="" if number else grid.title)
        out.print(_table(part, _widths(part, [minimums[c] for c in columns], out.width)))
    if grid.note:
        out.print()
        out.print(Text(grid.note, style="dim"))


def _parts(left: int, minimums: Sequence[int], width: int) -> list[list[int]]:
    """Split the columns into parts that fit, each with all columns of names."""
    names = list(range(left))
    parts = [names]
    for column in range(left, len(minimums)):
        extended = [*parts[-1], column]
        if parts[-1] != names and sum(minimums[c] + GAP for c in extended) - GAP > width:
            parts.append([*names, column])
        else:
            parts[-1] = extended
    return parts


def _table(grid: Grid, widths: Sequence[int]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
        title=Text(grid.title) if grid.title else None,
        title_justify="left",
    )
    for number, (header, wide) in enumerate(zip(grid.headers, widths, strict=True)):
        table.add_column(
            Text(_fold(header, wide)),
            overflow="fold",
            width=wide,
            justify="left" if number < grid.left else "right",
        )
    for row in grid.rows:
        table.add_row(*(Text(cell.plain, style="bold" if cell.bold else "") for cell in row))
    return table


def _widths(grid: Grid, minimums: Sequence[int], width: int) -> list[int]:
    """Give each column its minimum width, and then the room that is left, names first."""
    room = max(width - sum(minimums) - GAP * (len(grid.headers) - 1), 0)
    widths = []
    for number, header in enumerate(grid.headers):
        more = min(room, max(cell_len(header), _content_width(grid, number)) - minimums[number])
        room -= more
        widths.append(minimums[number] + more)
    return widths


def _minimum_widths(grid: Grid, width: int) -> list[int]:
    """Fit the widest number and the longest part of the heading; names may be folded."""
    wide = [
        max(_content_width(grid, number), *map(cell_len, _heading_parts(header)))
        for number, header in enumerate(grid.headers)
    ]
    names, numbers = wide[: grid.left], wide[grid.left :]
    narrow = [min(name, NARROW) for name in names]
    fits = sum(narrow) + max(numbers, default=0) + GAP * grid.left <= width
    return [*(narrow if fits else [min(name, NARROWEST) for name in names]), *numbers]


def _content_width(grid: Grid, number: int) -> int:
    return max([1, *(cell_len(row[number].plain) for row in grid.rows)])


def _fold(header: str, width: int) -> str:
    """Break a heading into lines at spaces, before @ and after /.

    Example:
        >>> _fold("Recall@100", 6).splitlines(), _fold("won/tied/lost", 9).splitlines()
        (['Recall', '@100'], ['won/tied/', 'lost'])
    """
    lines = [""]
    for part in _heading_parts(header):
        joined = lines[-1] + part
        if lines[-1] and cell_len(joined.rstrip()) > width:
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join(line.strip() for line in lines)


def _heading_parts(header: str) -> Sequence[str]:
    return re.findall(r"@?[^\s@/]*[/\s]?", header)[:-1] or [header]
