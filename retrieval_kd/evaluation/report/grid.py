"""A table as plain cells, written as Markdown and as LaTeX; for a terminal in `terminal.py`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LETTERS = "abcdefghijklmnoprstuvwxyz"  # Unicode has no superscript q
SUPERSCRIPT = dict(zip(LETTERS, "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ", strict=True))
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$",
    ">": r"$>$", "±": r"$\pm$", "−": "$-$", "–": "--", "×": r"$\times$", "\u202f": r"\,",
}  # fmt: skip
FROM_SUPERSCRIPT = {mark: letter for letter, mark in SUPERSCRIPT.items()}


@dataclass(frozen=True)
class Cell:
    """What a cell says, letters raised behind its number, and whether it stands out."""

    text: str
    marks: str = ""
    after: str = ""  # such as the spread over seeds
    bold: bool = False

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


def to_markdown(grid: Grid) -> str:
    """For a README or a page of documentation."""
    lines = [
        f"| {' | '.join(map(_markdown, grid.headers))} |",
        "|" + "---|" * grid.left + "---:|" * (len(grid.headers) - grid.left),
    ]
    for row in grid.rows:
        cells = [f"**{_markdown(c.plain)}**" if c.bold else _markdown(c.plain) for c in row]
        lines.append(f"| {' | '.join(cells)} |")
    head = [f"**{_markdown(grid.title)}**", ""] if grid.title else []
    return "\n".join([*head, *lines, *(["", _without_tags(grid.note)] if grid.note else [])])


def to_latex(grid: Grid) -> str:
    """A `tabular` with booktabs' rules; the note becomes a comment, for the caption."""
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


def _markdown(text: str) -> str:
    """A name as text: neither the end of its cell nor HTML."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return _without_tags(text)


def _without_tags(text: str) -> str:
    """What would begin a tag begins none; `p < .05` stays as it is."""
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", text)


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in re.sub("[ \t\r\n]+", " ", text))


def _latex_cell(cell: Cell) -> str:
    text = f"\\textbf{{{_latex(cell.text)}}}" if cell.bold else _latex(cell.text)
    return text + (f"$^{{{cell.marks}}}$" if cell.marks else "") + _latex(cell.after)


def _comment(text: str) -> str:
    """One line; raised letters as `^a`, since a comment may be set in any encoding."""
    raised = "".join(f"^{FROM_SUPERSCRIPT[c]}" if c in FROM_SUPERSCRIPT else c for c in text)
    return re.sub(r"\s+", " ", raised)
