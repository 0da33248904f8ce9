"""Objectives as the command line writes them: `kl(teacher_temperature=0.5)+infonce@batch`."""

from __future__ import annotations

import inspect
import re

from retrieval_kd.errors import InputError
from retrieval_kd.schema import apply_overrides, validate
from retrieval_kd.training.objective.terms import Term


def parse_terms(text: str) -> list[Term]:
    """`kl`, `kl+infonce`, `kl(teacher_temperature=0.5):1.0+infonce:0.5@batch` → terms.

    Example:
        >>> [(t.name, t.weight, t.candidates) for t in parse_terms("kl+infonce:0.5@batch")]
        [('kl', 1.0, 'slate'), ('infonce', 0.5, 'batch')]
        >>> parse_terms("kl(teacher_temperature=0.5)")[0].parameters
        {'teacher_temperature': 0.5}
    """
    terms = []
    for part in re.split(r"\+(?![^(]*\))", text):
        found = _TERM.fullmatch(part.strip())
        try:
            if found is None:
                raise InputError("it is not of the form NAME(SETTING=NUMBER):WEIGHT@CANDIDATES")
            name, settings, weight, candidates = found.groups()
            given = {"name": name, "weight": weight or 1.0, "candidates": candidates or "slate"}
            told = [setting.strip() for setting in settings.split(",")] if settings else []
            terms.append(validate(Term, apply_overrides(given, told)))
        except InputError as error:
            raise InputError(
                f"cannot read objective {part!r}: {error.problem.removeprefix('configuration: ')}",
                remedy="write for example kl, kl+infonce or "
                "kl(teacher_temperature=0.5):1.0+infonce:0.5@batch",
            ) from error
    return check_distinct(terms)


_TERM = re.compile(r"([^@:(]*)(?:\(([^()]*)\))?(?::([^@:]*))?(?:@(.*))?", re.DOTALL)


def check_distinct(terms: list[Term]) -> list[Term]:
    """Refuse two terms of one label: the log could not tell them apart."""
    labels = [term.label for term in terms]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"objective {twice[0]} is given twice", remedy="give it once")
    return terms


def with_temperature(term: Term, student_temperature: float) -> Term:
    """The term with τ_s set where the objective has one and the user gave none."""
    takes = "student_temperature" in inspect.signature(term.function).parameters
    if takes and "student_temperature" not in term.parameters:
        return term.model_copy(update={"student_temperature": student_temperature})
    return term
