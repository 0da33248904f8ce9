"""Reading objectives from text, as the command line writes them: `kl+infonce:0.5@batch`."""

from __future__ import annotations

import re

from retrieval_kd.errors import InputError
from retrieval_kd.schema import apply_overrides, validate
from retrieval_kd.training.objective.terms import Term


def parse_terms(text: str) -> list[Term]:
    """Read a sum of terms, each `NAME(SETTING=NUMBER):WEIGHT@CANDIDATES`.

    Example:
        >>> [(t.name, t.weight, t.candidates) for t in parse_terms("kl+infonce:0.5@batch")]
        [('kl', 1.0, 'slate'), ('infonce', 0.5, 'batch')]
        >>> parse_terms("kl(teacher_temperature=0.5)")[0].parameters
        {'teacher_temperature': 0.5}

    Raises:
        InputError: a term cannot be read, or is given twice.
    """
    terms = []
    for part in re.split(r"\+(?![^(]*\))", text):
        match = _TERM.fullmatch(part.strip())
        try:
            if match is None:
                raise InputError("it is not of the form NAME(SETTING=NUMBER):WEIGHT@CANDIDATES")
            name, settings, weight, candidates = match.groups()
            fields = {"name": name, "weight": weight or 1.0, "candidates": candidates or "slate"}
            parameters = [setting.strip() for setting in settings.split(",")] if settings else []
            terms.append(validate(Term, apply_overrides(fields, parameters)))
        except InputError as error:
            raise InputError(
                f"cannot read objective {part!r}: {error.problem.removeprefix('configuration: ')}",
                remedy="write for example kl, kl+infonce or "
                "kl(teacher_temperature=0.5):1.0+infonce:0.5@batch",
            ) from error
    return check_distinct(terms)


_TERM = re.compile(r"([^@:(]*)(?:\(([^()]*)\))?(?::([^@:]*))?(?:@(.*))?", re.DOTALL)


def check_distinct(terms: list[Term]) -> list[Term]:
    """Refuse two terms with the same label: the log could not tell them apart."""
    labels = [term.label for term in terms]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"objective {twice[0]} is given twice", remedy="give it once")
    return terms


def with_temperature(term: Term, student_temperature: float) -> Term:
    """Set the term's τ_s, where the objective has one and the user set none."""
    if "student_temperature" in term.takes and "student_temperature" not in term.parameters:
        return term.model_copy(update={"student_temperature": student_temperature})
    return term
