"""Averages the weights of models: of several trainings, or of a student and its start.

Model soups (https://arxiv.org/abs/2203.05482) average trainings that began alike; LM-Cocktail
(https://arxiv.org/abs/2311.13534) averages a trained model with its start, which forgets less.
Sentence Transformers' own `merge` has further ways to merge, and needs mergekit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn
from transformers import PreTrainedModel

from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_folder, check_movable, read_json, seal, write_json, write_text
from retrieval_kd.models import lora
from retrieval_kd.models.load import (
    IMITATES,
    LANGUAGE_MODELS,
    MODULES,
    declared,
    is_cross_encoder,
    load_cross_encoder,
    load_retriever,
)
from retrieval_kd.models.modules.residual import ResidualEncoder
from retrieval_kd.models.names import resolve_model
from retrieval_kd.schema import as_input_error, check_weights
from retrieval_kd.training.trainer.checkpoints import RECORD
from retrieval_kd.training.trainer.curve import DevTask, all_scores

SHARES = (1.0, 0.7, 0.5, 0.3)  # of a trained student, tried on dev; of equal ones the first
LENGTHS = ("query_length", "document_length", "processing_kwargs")  # which do not change weights
READ_ALIKE = ("model_type", "num_attention_heads", "hidden_act", "position_embedding_type")
ALIKE = 0.5  # least cosine of the same token's vectors; that of other random signs is 0

State = dict[str, Tensor]


def merge_saved(specs: Sequence[str], shares: Sequence[float] | None, out: Path) -> list[float]:
    """Average saved models of one architecture and save the result as the first one is saved.

    Two models are in memory at a time. The weights saved are float32.

    Args:
        specs: at least two MODELs.
        shares: weight of each, divided by their sum; by default all alike.
        out: a new folder.

    Returns:
        The shares, of sum 1.

    Raises:
        InputError: too few models, other shares, something in `out`, or models that differ in more
            than weights.
    """
    if len(specs) < 2:
        raise InputError("one model alone cannot be merged", remedy="name two or more")
    shares = shares or [1.0] * len(specs)
    if len(shares) != len(specs):
        raise InputError(
            f"there are {len(shares)} shares of {len(specs)} models", remedy="give one for each"
        )
    as_input_error(check_weights, shares, "shares as ")
    check_movable(out)
    if out.exists() and any(out.iterdir()):
        raise InputError("there is something already", file=out, remedy="give a new folder")
    for spec in specs:
        _check_kind(spec)
    shares = [share / sum(shares) for share in shares]
    average(specs, shares, specs, out)
    return shares


def average(specs: Sequence[str], shares: Sequence[float], names: Sequence[str], out: Path) -> None:
    """Average saved models, and save the result as the first one is saved.

    Args:
        shares: weight of each, of sum 1.
        names: what the card calls each.
        out: folder for the result; an earlier one is replaced.
    """
    merged = _load(specs[0])
    state = weighted([state_of(merged)], shares[:1])
    for spec, share in zip(specs[1:], shares[1:], strict=True):
        other = _load(spec)
        check_mergeable(merged, other, specs[0], spec)
        state = weighted([state, state_of(other)], [1.0, share])
    merged.load_state_dict(state)
    folder = Path(resolve_model(specs[0]).location)
    save_merged(merged, out, folder, list(zip(names, shares, strict=True)))


def merge_with_start(
    trained: Path,
    start: Any,
    base: str,
    share: float | Literal["dev"],
    out: Path,
    dev: DevTask | None,
) -> dict[str, Any]:
    """Average a trained student with the model that its training started from.

    Args:
        trained: the student's folder.
        start: the model at the start.
        base: what it was made from, for the card.
        share: weight of the trained one; "dev" is the best of `SHARES` by nDCG@10 on `dev`.
        out: folder for the result; an earlier one is replaced.

    Returns:
        `share`, and with "dev" `merged_dev_ndcg@10` of each share.

    Raises:
        InputError: there are no dev queries to choose by.
    """
    student, facts = _load(str(trained)), dict[str, Any]()
    check_mergeable(student, start, str(trained), f"the start, {base}")
    states = [state_of(student), state_of(start)]
    if share == "dev":
        if dev is None:
            raise InputError(
                "merge.share: dev is chosen on dev queries, and there are none",
                remedy="give a number, such as 0.5",
            )
        found = {}
        for tried in SHARES:
            student.load_state_dict(weighted(states, [tried, 1 - tried]))
            scores = all_scores(student, list(dev.queries.values()), dev.documents)
            found[tried] = dev.ndcg(scores)
        chosen = max(SHARES, key=found.__getitem__)
        facts = {"merged_dev_ndcg@10": {f"{tried:g}": value for tried, value in found.items()}}
    else:
        chosen = share
    student.load_state_dict(weighted(states, [chosen, 1 - chosen]))
    parts = [("the trained student", chosen), (f"its start, {base}", 1 - chosen)]
    save_merged(student, out, trained, parts)
    return {"share": chosen, **facts}


def save_merged(model: Any, out: Path, first: Path, parts: Sequence[tuple[str, float]]) -> None:
    """Save a merged model whole or not at all, with the record of the first model's training.

    Args:
        first: folder of the model that it is saved like.
        parts: names of the models, with their shares.
    """
    record = read_json(first / RECORD) if (first / RECORD).is_file() else {}
    for key in ("identity", IMITATES):  # it is not what that training ends in
        record.pop(key, None)
    sentence = " + ".join(f"{share:.3g} × {name}" for name, share in parts)
    with atomic_folder(out) as staged:
        model.save(str(staged), safe_serialization=True)
        write_json(staged / RECORD, {**record, "merge": dict(parts)})
        card = staged / "README.md"
        text = card.read_text("utf-8") if card.is_file() else ""
        write_text(card, f"{text.rstrip()}\n\n## Merging\n\nThe weights are {sentence}.\n")
        seal(staged)


def state_of(model: nn.Module) -> State:
    """Return copies of a model's weights in memory, by name."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def weighted(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> State:
    """Return Σ share · weights, by name; what has no decimals is the first model's.

    Example:
        >>> states = [{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}]
        >>> weighted(states, [0.25, 0.75])
        {'w': tensor([2.5000])}
    """
    return {
        name: sum(
            (share * state[name] for state, share in zip(states, shares, strict=True) if share),
            torch.zeros_like(tensor),
        )
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }


def check_mergeable(one: Any, other: Any, name: str, other_name: str) -> None:
    """Refuse two models that differ in more than their weights.

    Raises:
        InputError: with the first difference.
    """
    found = _difference(one, other)
    if found:
        raise InputError(
            f"{other_name} cannot be merged with {name}: {found}",
            remedy="give models of one architecture, such as two trainings of the same student",
        )


def _difference(one: Any, other: Any) -> str:
    kinds = [type(model).__name__ for model in (one, other)]
    if kinds[0] != kinds[1]:
        return f"one is a {kinds[1]}, the other a {kinds[0]}"
    shapes = [{n: tuple(t.shape) for n, t in model.state_dict().items()} for model in (one, other)]
    for name in dict.fromkeys([*shapes[0], *shapes[1]]):
        here, there = (
            f"has shape {shape[name]}" if name in shape else "is missing" for shape in shapes
        )
        if here != there:
            return f"{name} {there} there and {here} here"
    mine, others = _settings(one), _settings(other)
    for name in dict.fromkeys([*mine, *others]):
        if name not in mine or name not in others:
            return f"{name} is missing {'here' if name in others else 'there'}"
        for key in dict.fromkeys([*mine[name], *others[name]]):
            own, theirs = mine[name].get(key), others[name].get(key)
            if own != theirs:
                return f"{key} of {name} is {theirs!r} there and {own!r} here"
    if _vocabularies(one) != _vocabularies(other):
        return "their tokenizers have different words"
    if isinstance(one, ResidualEncoder):
        words = (model.embedding.table.vectors.detach().cpu() for model in (one, other))
        if nn.functional.cosine_similarity(next(words), next(words)).mean() < ALIKE:
            return "the random vectors of their words were drawn with different seeds"
    return ""


def _settings(model: Any) -> dict[str, dict[str, Any]]:
    """Settings that decide what the weights mean, by module."""
    similarity = getattr(model, "similarity_fn_name", None)
    found: dict[str, dict[str, Any]] = {"the model": {"similarity": similarity and str(similarity)}}
    for name, module in model.named_modules():
        title = f"module {name} ({type(module).__name__})"
        if isinstance(module, Module):
            own = module.get_config_dict().items()
            found[title] = {key: repr(value) for key, value in own if key not in LENGTHS}
        elif isinstance(module, PreTrainedModel):
            found[title] = {key: getattr(module.config, key, None) for key in READ_ALIKE}
    return found


def _vocabularies(model: Any) -> list[dict[str, int]]:
    tokenizers = [getattr(module, "tokenizer", None) for module in model.modules()]
    return [t.get_vocab() for t in tokenizers if t is not None and hasattr(t, "get_vocab")]


def _load(spec: str) -> Any:
    load = load_cross_encoder if is_cross_encoder(spec) else load_retriever
    return load(spec, dtype=torch.float32)


def _check_kind(spec: str) -> None:
    """Refuse what would load as an encoder and is none."""
    if lora.base_of(resolve_model(spec).location) is not None:
        problem, remedy = "an adapter", "write it and its base as one model first, by `rkd merge`"
    elif not declared(spec, MODULES) and any(
        word in str(declared(spec).get("architectures")) for word in LANGUAGE_MODELS
    ):
        problem, remedy = "a language model", "give encoders or cross-encoders"
    else:
        return
    raise InputError(f"this is {problem}, whose weights are not averaged", id=spec, remedy=remedy)
