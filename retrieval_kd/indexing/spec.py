"""What index to build, as YAML: `indexes/*.yaml`. How it is built is in `build.py`."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retrieval_kd.errors import InputError


class IndexSpec(BaseModel):
    """A FAISS index by its factory string, and how it is trained and searched.

    Example:
        >>> IndexSpec(factory="IVF256,PQ48", search="nprobe=16").metric
        'auto'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    factory: str = Field(
        default="Flat",
        description="any string faiss.index_factory reads: Flat, HNSW32, IVF256,PQ48, SQ8, …",
    )
    metric: Literal["auto", "cosine", "dot"] = Field(
        default="auto",
        description="auto: the model's own similarity; cosine scales a dot-product model's vectors",
    )
    train_documents: int = Field(
        default=100_000,
        ge=1,
        description="documents (a random sample) to train on, for factories that need training",
    )
    seed: int = Field(default=0, ge=0, description="of the training sample (no unit)")
    build: str = Field(
        default="",
        description="FAISS parameters set before documents are added, such as efConstruction=200",
    )
    search: str = Field(
        default="",
        description="FAISS parameters for searching, such as nprobe=16 or efSearch=128",
    )
    threads: int = Field(
        default=0,
        ge=0,
        description=(
            "threads that add documents (0: all); HNSW gives the same graph twice only with 1"
        ),
    )


def load_spec(path: str | Path) -> IndexSpec:
    """Read a specification; an unknown key is an error that names the nearest known one."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the index specification: {error}",
            remedy="name a YAML file, such as indexes/flat.yaml",
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"not YAML: {' '.join(str(error).split())}", file=path) from error
    return parse_spec(values, path)


def parse_spec(values: object, file: str | Path | None = None) -> IndexSpec:
    """A specification from a mapping, such as a part of a bigger YAML file.

    Example:
        >>> parse_spec({"factroy": "Flat"})
        Traceback (most recent call last):
        ...
        retrieval_kd.errors.InputError: factroy: unknown key. To fix: use 'factory', the nearest.
    """
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(
            "an index specification is a mapping of keys to values",
            file=file,
            remedy="write lines such as  factory: Flat",
        )
    try:
        return IndexSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] != "extra_forbidden":
            raise InputError(f"{key}: {first['msg']}", file=file) from error
        known = list(IndexSpec.model_fields)
        near = difflib.get_close_matches(key, known, n=1)
        remedy = f"use {near[0]!r}, the nearest" if near else f"known keys: {', '.join(known)}"
        raise InputError(f"{key}: unknown key", file=file, remedy=remedy) from error
