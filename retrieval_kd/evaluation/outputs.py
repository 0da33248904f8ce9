"""The files that `rkd evaluate`, `rkd compare` and `rkd suite` write besides printing tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from retrieval_kd.errors import InputError
from retrieval_kd.evaluation.report.grid import Grid, to_latex, to_markdown
from retrieval_kd.files import write_json, write_text
from retrieval_kd.metrics.evaluation import Evaluation


@dataclass(frozen=True)
class Outputs:
    """Paths to write to; a file whose path is None is not written."""

    json: str | Path | None = None
    report: str | Path | None = None
    latex: str | Path | None = None
    markdown: str | Path | None = None
    card: str | Path | None = None  # a student's folder
    card_system: str | None = None  # which system the student is, if several could be

    def write(
        self,
        record: Callable[[], dict[str, Any]],
        grids: Sequence[Grid],
        page: Callable[[], str] = str,
        evaluations: Mapping[str, Evaluation] | None = None,
        systems: Mapping[str, str] | None = None,
    ) -> None:
        """Write each file in one step, so that none is ever half written.

        Args:
            record: makes the result file; it is called only if that is needed, since it digests all
                values and imports torch for its versions.
            page: renders the HTML report.
            evaluations: collection → its evaluation, for the model card.
            systems: as `student` takes them.
        """
        student = self.student(systems or {}) if self.card is not None else ""
        sealed = cache(record)
        if self.json is not None:
            write_json(self.json, sealed())
        if self.markdown is not None:
            write_text(self.markdown, "\n\n".join(map(to_markdown, grids)) + "\n")
        if self.latex is not None:
            write_text(self.latex, "\n\n".join(map(to_latex, grids)) + "\n")
        if self.report is not None:
            write_text(self.report, page())
        if self.card is not None:
            from retrieval_kd.evaluation.report.model_card import update_model_card

            update_model_card(self.card, evaluations or {}, student, digest=sealed()["digest"])

    def student(self, systems: Mapping[str, str]) -> str:
        """Return the system whose model is in the folder `card`.

        It is `card_system` if that is set, else the system made from this folder, else the only
        system.
        """
        if self.card_system is not None:
            if self.card_system not in systems:
                remedy = f"name one of {', '.join(systems)}"
                raise InputError(f"unknown system {self.card_system!r}", remedy=remedy)
            return self.card_system
        folder = Path(str(self.card)).resolve()
        same = [name for name, source in systems.items() if Path(source).resolve() == folder]
        if len(same or systems) == 1:
            return next(iter(same or systems))
        raise InputError(
            f"which of {', '.join(systems)} is the model in {folder.name}?",
            remedy="name it with --card-system",
        )

    def check_card(self, systems: Mapping[str, str]) -> None:
        """Raise InputError before anything is measured if the model card could not be written."""
        if self.card is not None:
            from retrieval_kd.evaluation.report.model_card import open_card

            self.student(systems)
            open_card(self.card)
