"""Index specifications: the YAML files `indexes/*.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from retrieval_kd.errors import InputError
from retrieval_kd.schema import LARGEST, Count, Dimensions, Part, Seed, read_yaml, validate

MOST_CELLS = 2**24
LINKS = range(4, 513)  # of a document in a graph: FAISS crashes with fewer than two
SHARES = ("heap_factor", "kept", "centroid_fraction", "summary_energy")  # of Seismic: 0 to 1
FROM_ZERO = ("ht", "max_codes", "verbose", *SHARES)  # parameters that may be 0
TOKEN_SEARCH = {"candidates": 256, "nprobe": 16}  # how coded multi-vector indexes are searched
SEISMIC_SEARCH = {"query_cut": 10, "heap_factor": 0.8}  # how a fast sparse index is searched
SEISMIC_BUILD = {"kept": 0.25, "max_fraction": 20.0, "centroid_fraction": 0.2,
                 "summary_energy": 0.5}  # fmt: skip
SEISMIC_FIELDS = {"kind", "engine", "build", "search"}  # what decides the content of one
TOKEN_FIELDS = {"kind", "bits", "pool", "seed", "search"}  # what decides the content of one


class IndexSpec(Part):
    """A FAISS index by its factory string, with its training and search settings.

    The exact indexes of sparse and multi-vector models have no settings; `engine` makes a sparse
    index fast, and `bits` a multi-vector index small.

    Example:
        >>> IndexSpec(factory="IVF256,PQ48", search="nprobe=16").metric
        'auto'
        >>> IndexSpec(kind="multi_vector", bits=2, pool=3).as_dict()["search"]
        'candidates=256,nprobe=16'
        >>> IndexSpec(kind="sparse", engine="seismic", search="query_cut=20").as_dict()["search"]
        'query_cut=20,heap_factor=0.8'
    """

    kind: Literal["faiss", "sparse", "multi_vector"] = Field(
        default="faiss",
        description="faiss: for dense models; sparse, multi_vector: exact, for models of that kind",
    )
    factory: str = Field(
        default="Flat",
        description="any string faiss.index_factory reads: Flat, HNSW32, IVF256,PQ48, SQ8, …",
    )
    metric: Literal["auto", "cosine", "dot"] = Field(
        default="auto",
        description="auto: the model's own similarity; cosine scales a dot-product model's vectors",
    )
    dimensions: Dimensions | None = Field(
        default=None,
        description="first dimensions of each vector to index (Matryoshka); by default all",
    )
    train_documents: int = Field(
        default=100_000,
        ge=1,
        description="documents (a random sample) to train on, for factories that need training",
    )
    seed: Seed = Field(default=0, description="seed that draws the training sample (no unit)")
    build: str = Field(
        default="",
        description=(
            "FAISS parameters set before documents are added, such as efConstruction=200; of a "
            "sparse index with engine: seismic, kept (share of all weights, the largest ones, by "
            "which documents are found), max_fraction (most of one word, times the mean), "
            "centroid_fraction (blocks per weight kept) and summary_energy (share of a block's "
            "weights that its summary keeps)"
        ),
    )
    search: str = Field(
        default="",
        description=(
            "FAISS parameters for searching, such as nprobe=16 or efSearch=128; of a multi-vector "
            "index with bits, candidates (documents scored) and nprobe (centroids a query token); "
            "of a sparse index with engine: seismic, query_cut (words of a query that are looked "
            "up) and heap_factor (0 to 1: how readily blocks are skipped)"
        ),
    )
    threads: Count = Field(
        default=0,
        le=1024,
        description=(
            "threads that add documents (0: all); HNSW builds the same graph twice only with 1"
        ),
    )

    engine: Literal["seismic"] | None = Field(
        default=None,
        description="sparse: seismic searches approximately and fast; by default exact",
    )
    bits: Literal[8, 4, 2, 1] | None = Field(
        default=None,
        description="multi_vector: bits per number of a token's vector; by default exact (16)",
    )
    pool: float = Field(
        default=1.0,
        ge=1,
        le=64,
        description="multi_vector with bits: average similar tokens, so that one in `pool` remains",
    )

    @field_validator("factory")
    @classmethod
    def _adds(cls, factory: str) -> str:
        check_factory(factory)
        return factory

    @field_validator("build", "search")
    @classmethod
    def _parameters(cls, parameters: str) -> str:
        check_parameters(parameters)
        return parameters

    @model_validator(mode="after")
    def _settings_fit_the_kind(self) -> IndexSpec:
        given = sorted(self.model_fields_set - {"kind"})
        coded = self.kind == "multi_vector" and self.bits is not None
        fast = self.kind == "sparse" and self.engine is not None
        for name in given:
            if self.kind == "faiss" and name in ("bits", "pool"):
                raise ValueError(
                    f"{name} is for kind: multi_vector; the factory says how small a dense index is"
                )
            if self.kind == "multi_vector" and not coded and name in TOKEN_FIELDS:
                raise ValueError(f"{name} needs bits: 8, 4, 2 or 1, as the index is exact without")
            if self.kind == "sparse" and not fast and name in ("build", "search"):
                raise ValueError(f"{name} needs engine: seismic, as the index is exact without")
            if name == "engine" and self.kind != "sparse":
                raise ValueError("engine is for kind: sparse")
            fitting = TOKEN_FIELDS if coded else SEISMIC_FIELDS if fast else set()
            if self.kind != "faiss" and name not in fitting:
                why = "" if fitting else ": it is exact"
                raise ValueError(f"an index of kind {self.kind} has no {name}{why}")
        if coded:
            token_search(self.search)
        if fast:
            seismic_parameters(self.build, SEISMIC_BUILD)
            seismic_parameters(self.search, SEISMIC_SEARCH)
        return self

    @property
    def model_kind(self) -> str:
        """The kind of model whose vectors are indexed."""
        return "dense" if self.kind == "faiss" else self.kind

    def as_dict(self) -> dict[str, Any]:
        """The settings that decide the index's content, as written to its manifest."""
        if self.bits is not None:
            search = written(token_search(self.search))
            return self.model_dump(include=TOKEN_FIELDS) | {"search": search}
        if self.engine is not None:
            build = written(seismic_parameters(self.build, SEISMIC_BUILD))
            search = written(seismic_parameters(self.search, SEISMIC_SEARCH))
            return {"kind": self.kind, "engine": self.engine, "build": build, "search": search}
        if self.kind != "faiss":
            return {"kind": self.kind}
        # manifests of older indexes have no `dimensions`
        absent = {"kind", "engine", "bits", "pool"} | (set() if self.dimensions else {"dimensions"})
        return self.model_dump(exclude=absent)


def check_factory(factory: str) -> None:
    """Refuse what FAISS reads in a factory string but cannot add documents to.

    Raises:
        ValueError: naming the part.
    """
    if "IDMap" in factory:
        raise ValueError("IDMap needs IDs, and an index here numbers its rows: leave IDMap out")
    for name, digits in re.findall(r"([A-Za-z]*)(\d+)", factory):
        links = name in ("HNSW", "NSG")
        if int(digits) not in (LINKS if links else range(1, MOST_CELLS + 1)):
            most = f"{LINKS[0]} to {LINKS[-1]} links" if links else f"1 to {MOST_CELLS}"
            raise ValueError(f"{name}{digits} in factory {factory!r}: give {most}")


def check_parameters(parameters: str) -> None:
    """Refuse values of FAISS's parameters with which it finds nothing, or crashes.

    Example:
        >>> check_parameters("nprobe=16,quantizer_efSearch=64")

    Raises:
        ValueError: naming the parameter.
    """
    for part in filter(None, parameters.replace(" ", "").split(",")):
        name, _, text = part.partition("=")
        least = 0 if name in FROM_ZERO else 1
        try:
            good = least <= float(text) <= (LARGEST if name in FROM_ZERO else 1_000_000)
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"parameter {part!r}: write name=number, a number of {least} or more")


def read_parameters(parameters: str, defaults: Mapping[str, float], of: str) -> dict[str, Any]:
    """Read how an index that is not FAISS's is built or searched, over `defaults`.

    A parameter is a whole number if its default is one.

    Args:
        of: the kind of index, for messages.

    Example:
        >>> read_parameters("nprobe=8", TOKEN_SEARCH, "a multi-vector index")
        {'candidates': 256, 'nprobe': 8}

    Raises:
        ValueError: naming the parameter.
    """
    check_parameters(parameters)
    found: dict[str, Any] = dict(defaults)
    for part in filter(None, parameters.replace(" ", "").split(",")):
        name, _, text = part.partition("=")
        if name not in found:
            known = ", ".join(f"{name}=…" for name in defaults)
            raise ValueError(f"parameter {part!r}: {of} has {known} here")
        whole = isinstance(defaults[name], int)
        if (whole and not text.isdecimal()) or (name in SHARES and float(text) > 1):
            raise ValueError(f"parameter {part!r}: give {'an integer' if whole else '0 to 1'}")
        found[name] = int(text) if whole else float(text)
    return found


def token_search(parameters: str) -> dict[str, int]:
    """Read how a coded multi-vector index is searched; see `read_parameters`."""
    return read_parameters(parameters, TOKEN_SEARCH, "a multi-vector index")


def seismic_parameters(parameters: str, defaults: Mapping[str, float]) -> dict[str, Any]:
    """Read how a fast sparse index is built or searched; see `read_parameters`.

    Example:
        >>> seismic_parameters("heap_factor=0.6", SEISMIC_SEARCH)
        {'query_cut': 10, 'heap_factor': 0.6}
    """
    return read_parameters(parameters, defaults, "a fast sparse index")


def written(parameters: Mapping[str, float]) -> str:
    """Write parameters as they are read."""
    return ",".join(f"{name}={value:g}" for name, value in parameters.items())


def check_candidates(parameters: str, documents: int) -> None:
    """Refuse search parameters of a coded multi-vector index that do not fit it.

    Raises:
        InputError: unknown ones, or more candidates than documents.
    """
    try:
        candidates = token_search(parameters)["candidates"]
    except ValueError as error:
        raise InputError(
            f"search parameters {parameters!r} do not fit this index: {error}",
            remedy="write them as candidates=256,nprobe=16",
        ) from error
    if candidates > documents:
        raise InputError(
            f"{candidates} candidates are more than the {documents} documents",
            remedy=f"set search: candidates={documents}, or use indexes/multivector.yaml",
        )


def spec_for(model_kind: str) -> IndexSpec:
    """The default specification for a kind of model: exact search."""
    return IndexSpec() if model_kind == "dense" else IndexSpec(kind=model_kind)  # type: ignore[arg-type]


def load_spec(path: str | Path) -> IndexSpec:
    """Read a specification. `indexes/hnsw.yaml` and the other shipped files load from any folder.

    Raises:
        InputError: no such file, or a wrong value or key; the nearest known key is suggested.
    """
    shipped = Path(__file__).parents[2] / path
    file = shipped if not Path(path).exists() and shipped.exists() else path
    return validate(IndexSpec, read_yaml(file), path)
