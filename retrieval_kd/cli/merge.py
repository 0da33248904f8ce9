"""The subcommand `merge`: one model from several, or from an adapter and its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval_kd.cli.options import out_folder
from retrieval_kd.data.numerals import finite_number
from retrieval_kd.errors import InputError
from retrieval_kd.progress import say

merge_app = typer.Typer()


@merge_app.command()
def merge(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…", help="two or more, or the folder of one LoRA adapter"),
    ],
    out: Annotated[Path, out_folder("a new folder for the merged model")],
    share: Annotated[
        str | None,
        typer.Option(help="weight of each model, such as 0.7,0.3; by default all weigh the same"),
    ] = None,
) -> None:
    """Average the weights of models of one architecture, or write an adapter into its base.

    The models are students or cross-encoders: two trainings of one student, or a trained model and
    what it started from. The result is saved as the first one is. One LoRA adapter alone becomes
    one model with its base, which is faster than the two. Weights are saved in float32.
    """
    shares = shares_of(share) if share is not None else None
    if len(models) == 1:
        if shares is not None:
            raise InputError("an adapter has no shares", remedy="leave --share out")
        from retrieval_kd.teachers.pointwise.yes_no import merge_adapter

        merge_adapter(models[0], out)
        say(out)
        return
    from retrieval_kd.training.merge import merge_saved

    used = merge_saved(models, shares, out)
    parts = zip(used, models, strict=True)
    say(f"{out}: {' + '.join(f'{part:.3g} × {model}' for part, model in parts)}")


def shares_of(text: str) -> list[float]:
    """Read shares.

    Example:
        >>> shares_of("0.7, 0.3")
        [0.7, 0.3]
    """
    numbers = [finite_number(part.strip()) for part in text.split(",")]
    read = [number for number in numbers if number is not None]
    if len(read) < len(numbers):
        raise InputError(f"cannot read the shares {text!r}", remedy="write them as 0.7,0.3")
    return read
