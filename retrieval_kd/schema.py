"""Reads YAML into pydantic models: `extends`, overrides, bounds of numbers, clear errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from retrieval_kd.errors import InputError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)

# the bounds of numbers, for options of commands and settings of configurations alike
LARGEST = 2**31 - 1  # of whole numbers: more does not fit what libraries count and seed with

Count = Annotated[int, Field(ge=0)]
Depth = Annotated[int, Field(ge=1, le=1_000_000_000)]  # documents per query
Dimensions = Annotated[int, Field(ge=1, le=65_536)]  # of a vector
Layer = Annotated[int, Field(ge=0)]  # counted from 0
Price = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Temperature = Annotated[float, Field(gt=0)]
Tokens = Annotated[int, Field(ge=8, le=1_000_000)]  # that a text or pair is cut to
Weight = Annotated[float, Field(ge=0)]

# how pydantic's error types begin → what to write instead
TYPES = {
    "int": "a whole number, such as 8,",
    "float": "a number, such as 0.5,",
    "bool": "true or false",
    "string_type": "text",
    "list": "a list, such as [a, b],",
    "tuple": "a list, such as [a, b],",
    "dict": "a mapping, such as {key: value},",
    "model": "a mapping, such as {key: value},",
    "literal": "one of these",
}
UNION = re.compile(r"list\[.*\]|constrained-\w+")  # how pydantic calls one of a field's types
LENGTHS = {"too_short": "add to it", "too_long": "shorten it"}
RANGES = {
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number",
    "multiple_of", "string_pattern_mismatch",
}  # fmt: skip
HOME = re.compile(r"(^|\+|\?prompt=|&prompt=)((?:[\w.-]+[:=])*)(~\w*)(?=/)")


def check_size(value: Any) -> Any:
    """Refuse whole numbers that no library can compute with, in lists and mappings too.

    Example:
        >>> check_size([1, 2**31 - 1])
        [1, 2147483647]
    """
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"Input should be between {-LARGEST} and {LARGEST}")
    for item in value.values() if isinstance(value, Mapping) else ():
        check_size(item)
    for item in value if isinstance(value, list | tuple) else ():
        check_size(item)
    return value


class Part(BaseModel):
    """A part of the configuration; unknown keys and numbers beyond all use are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,  # an address may hold a key; pydantic asks the root model only
        allow_inf_nan=False,
    )

    _size = field_validator("*")(check_size)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, about: ValidationInfo) -> Any:
        """Refuse the text `1_0` for a number: pydantic reads 10."""
        is_number = isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9][0-9_.eE+-]*", value)
        kinds = types_in(cls.model_fields[about.field_name or ""].annotation)
        if is_number and "_" in value and str not in kinds:
            raise ValueError("write the number in plain digits")
        return value

    def cache_key(self) -> Any:
        """Return what of this part decides results, as plain values. By default all of it."""
        return self.model_dump(mode="json")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        InputError: no such file, not YAML, or not a mapping; with the line if known.
    """
    try:
        values = _parse(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("no such file", file=path, remedy="name a YAML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read it: {error}", file=path, remedy="name a YAML file"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        line = mark.line + 1 if mark else None
        remedy = "mend the line: keys end in a colon and a space, what belongs together is indented"
        raise InputError(f"not YAML: {problem}", file=path, line=line, remedy=remedy) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        remedy = "write lines such as name: value"
        raise InputError("a configuration is a mapping of keys to values", file=path, remedy=remedy)
    return values


class _Loader(yaml.SafeLoader):
    """Reads YAML's plain types. `1_0`, `010` and `1:30` are 10, 8 and 90 to it, and are refused."""


def _plain_number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    if re.search(r"[_:]|^[+-]?0[0-9]", node.value):
        problem = f"{node.value!r} is no plain number; write digits alone, or text in quotes"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    is_whole = node.tag.endswith(":int")
    return (loader.construct_yaml_int if is_whole else loader.construct_yaml_float)(node)


for tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{tag}", _plain_number)

STUMBLES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def expanded(value: Any) -> Any:
    """Replace `~` where a path begins by the home folder, in lists and mappings too.

    Example:
        >>> expanded("bm25+~/m") == "bm25+" + os.path.expanduser("~/m"), expanded("x ~/y")
        (True, 'x ~/y')
    """
    if value == "~":
        return os.path.expanduser(value)
    if isinstance(value, str):
        return HOME.sub(lambda found: found[1] + found[2] + os.path.expanduser(found[3]), value)
    if isinstance(value, list | tuple):
        return type(value)(map(expanded, value))
    return {k: expanded(v) for k, v in value.items()} if isinstance(value, dict) else value


def _parse(text: str) -> Any:
    """Parse YAML, with `~` expanded. Values that PyYAML stumbles over are a `YAMLError` too."""
    if half := re.search(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}", text):
        raise yaml.YAMLError(f"{half[0]} is half a character; write the character itself")
    try:
        return expanded(yaml.load(text, _Loader))
    except STUMBLES as error:
        problem = f"a value that cannot be read: {' '.join(str(error).split())}"
        raise yaml.YAMLError(problem) from error


def read_extended(path: str | Path) -> dict[str, Any]:
    """Read the mapping in a YAML file, over that of the file it names in `extends`, if any.

    `extends: ../base.yaml` is relative to the file it is in; that file may extend another one.

    Raises:
        InputError: a file cannot be read, or one extends itself.
    """
    layers: list[dict[str, Any]] = []
    seen: list[Path] = []
    at: Path | None = Path(path)
    while at is not None:
        if seen and not at.is_file():
            raise InputError(
                f"extends {at}, which is not a file",
                file=seen[-1],
                remedy="write the path from the folder of the file that extends",
            )
        if at.resolve() in seen:
            chain = " → ".join(file.name for file in [*seen, at])
            remedy = "take one `extends` out"
            raise InputError(f"extends itself: {chain}", file=path, remedy=remedy)
        seen.append(at.resolve())
        values = read_yaml(at)
        base = values.pop("extends", None)
        if not isinstance(base, str | None):
            raise InputError("extends names one file", file=at, remedy="write extends: FILE.yaml")
        layers.append(values)
        at = at.parent / base if base is not None else None
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = overlay(merged, layer)
    return merged


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `top` over `base`: mappings are merged key by key, all else is replaced.

    Example:
        >>> overlay({"train": {"steps": 40, "seed": 0}, "seeds": [0]}, {"train": {"steps": 2}})
        {'train': {'steps': 2, 'seed': 0}, 'seeds': [0]}
    """
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = overlay(below, value) if both else value  # type: ignore[arg-type]
    return merged


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set `a.b=VALUE` in nested mappings. VALUE is YAML; items of a list go by number from 0.

    Example:
        >>> apply_overrides({"student": {"base": "m"}}, ["student.layers=[0,2,5]"])
        {'student': {'base': 'm', 'layers': [0, 2, 5]}}
        >>> apply_overrides({"stages": [{"steps": 9}, {"steps": 9}]}, ["stages.1.steps=2"])
        {'stages': [{'steps': 9}, {'steps': 2}]}
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise InputError(
                f"cannot read the override {override!r}", remedy="write key=value, such as seed=1"
            )
        *path, last = key.strip().split(".")
        at = _inside(values, path)
        try:
            value = _parse(text)
        except yaml.YAMLError as error:
            raise InputError(
                f"the value of {key!r} is not YAML: {text!r}",
                remedy="write it as in a file, text with special characters in quotes",
            ) from error
        if isinstance(at, dict):
            at[last] = value
        else:
            at[_number(key, last, at)] = value
    return values


def _inside(values: dict[str, Any], path: Sequence[str]) -> dict[str, Any] | list[Any]:
    """Return the mapping or list at a path; missing mappings are created."""
    at: dict[str, Any] | list[Any] = values
    for part in path:
        place: Any = _number(".".join(path), part, at) if isinstance(at, list) else part
        below = at[place] if isinstance(at, list) else at.get(place)
        if isinstance(below, list):  # copied, as a YAML alias may use it elsewhere too
            below = list(below)
        else:
            below = dict(below) if isinstance(below, dict) else {}
        at[place] = below
        at = below
    return at


def _number(key: str, part: str, items: list[Any]) -> int:
    """Parse the part of a key that numbers an item of a list."""
    if not part.isdecimal() or int(part) >= len(items):
        remedy = f"write a number below {len(items)}, or the whole list"
        raise InputError(f"{key}: {part!r} is not an item of a list of {len(items)}", remedy=remedy)
    return int(part)


def validate(model: type[Model], values: Any, file: str | Path | None = None) -> Model:
    """Check `values` against a model; the first mistake is raised as one sentence.

    Example:
        >>> class Spec(BaseModel, extra="forbid"):
        ...     factory: str = "Flat"
        >>> validate(Spec, {"factroy": "Flat"})
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: factroy: unknown key. To fix: did you mean 'factory'?
    """
    try:
        return model.model_validate(values)
    except RecursionError as error:
        remedy = "take out the alias that names what it is in"
        raise InputError("a value inside itself", file=file, remedy=remedy) from error
    except InputError as error:  # of a check that does not know the file
        problem, where = error.problem, error.file or file
        raise InputError(
            problem, file=where, line=error.line, id=error.id, remedy=error.remedy
        ) from error
    except ValidationError as error:
        # A misspelt key often leaves another one missing; the misspelling is what helps.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = ".".join(str(p) for p in first["loc"] if not UNION.fullmatch(str(p)))
        if first["type"] != "extra_forbidden":
            message = first["msg"].removeprefix("Value error, ")
            raise InputError(
                f"{key or 'configuration'}: {message}", file=file, remedy=_remedy(key, first)
            ) from error
        known = _known_keys(model, first["loc"][:-1])
        remedy = did_you_mean(str(first["loc"][-1]), known) or f"known keys: {', '.join(known)}"
        raise InputError(f"{key}: unknown key", file=file, remedy=remedy) from error


def as_value_error(check: Callable[..., object], *arguments: Any) -> None:
    """Run a check in a model's validator; its InputError becomes pydantic's error with the key."""
    try:
        check(*arguments)
    except InputError as error:
        raise ValueError(f"{error.problem}; {error.remedy}") from error


def as_input_error(check: Callable[..., object], *arguments: Any) -> None:
    """Run a validator's check outside a model; its ValueError becomes an InputError."""
    try:
        check(*arguments)
    except ValueError as error:
        raise InputError(str(error)) from error


def check_type(kind: Any, value: Any, of: str = "") -> None:
    """Refuse a value that is not of a type with bounds.

    Example:
        >>> check_type(Tokens, 0, "max_length: ")
        Traceback (most recent call last):
        ...
        ValueError: max_length: Input should be greater than or equal to 8, not 0

    Raises:
        ValueError: saying what it should be.
    """
    sized = Annotated[kind, AfterValidator(check_size)]
    try:
        TypeAdapter(sized, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        problem = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{of}{problem}, not {first['input']}") from error


def check_weights(weights: Sequence[float], of: str = "") -> None:
    """Refuse weights that are none, and weights with which no teacher counts."""
    if not all(weight >= 0 for weight in weights) or not any(weights):
        raise ValueError(f"{of}weights must not be negative, and one must be above 0")


def _remedy(key: str, mistake: Mapping[str, Any]) -> str:
    """Return what to write instead, if only the value's type or range is wrong."""
    kind, value = str(mistake["type"]), mistake.get("input")
    shown = repr(value) if isinstance(value, str | int | float | None) else "it"
    known = re.findall(r"'([^']*)'", mistake["ctx"]["expected"]) if kind == "literal_error" else []
    near = did_you_mean(str(value), known)
    if near or kind == "missing":
        return near or f"add {key}"
    for start, wanted in TYPES.items():
        if kind.startswith(start):
            return f"write {wanted} in place of {shown}"
    return f"choose a value other than {shown}" if kind in RANGES else LENGTHS.get(kind, "")


def _known_keys(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the keys of the (nested) model at a path."""
    for part in path:
        field = model.model_fields.get(str(part))
        nested = [m for m in models_in(field.annotation) if field] if field else []
        if nested:
            model = nested[0]
    return list(model.model_fields)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in a field's annotation, such as in `list[Model] | None`."""
    return [kind for kind in types_in(annotation) if issubclass(kind, BaseModel)]


def types_in(annotation: Any) -> list[type]:
    """Return the plain types in an annotation, in its order.

    Example:
        >>> types_in(Annotated[list[float] | None, Field(ge=0)])
        [<class 'float'>, <class 'NoneType'>]
    """
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    return [kind for argument in get_args(annotation) for kind in types_in(argument)]
