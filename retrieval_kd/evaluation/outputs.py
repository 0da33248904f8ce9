"""Which files `rkd evaluate` writes besides its table, and which system a model card is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retrieval_kd.errors import InputError


@dataclass(frozen=True)
class Outputs:
    """Paths to write to; None: not asked for."""

    json: str | Path | None = None
    report: str | Path | None = None
    latex: str | Path | None = None
    markdown: str | Path | None = None
    card: str | Path | None = None  # a student's folder
    card_system: str | None = None  # which system it is, where that is not plain


def system_of_card(outputs: Outputs, systems: Mapping[str, str]) -> str:
    """The system that the card's folder is: as named, the one made of this folder, or the only one.

    Args:
        systems: name → what it was made from, such as a model's path.
    """
    if outputs.card_system is not None:
        if outputs.card_system not in systems:
            remedy = f"name one of {', '.join(systems)}"
            raise InputError(f"unknown system {outputs.card_system!r}", remedy=remedy)
        return outputs.card_system
    folder = Path(str(outputs.card)).resolve()
    same = [name for name, made in systems.items() if Path(made).resolve() == folder]
    if len(same or systems) == 1:
        return next(iter(same or systems))
    raise InputError(
        f"which of {', '.join(systems)} is the model in {folder.name}?",
        remedy="name it with --card-system",
    )


def check_card(outputs: Outputs, systems: Mapping[str, str]) -> None:
    """Refuse a model card that could not be written, before anything is measured.

    Args:
        systems: as `system_of_card` takes them.
    """
    if outputs.card is not None:
        from retrieval_kd.evaluation.report.model_card import open_card

        system_of_card(outputs, systems)
        open_card(outputs.card)
