"""Index specifications: the YAML files `indexes/*.yaml`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from retrieval_kd.errors import InputError
from retrieval_kd.schema import LARGEST, Count, Dimensions, Part, Seed, read_yaml, validate

MOST_CELLS = 2**24
LINKS = range(4, 513)  # of a document in a graph: FAISS crashes with fewer than two
FROM_ZERO = ("ht", "max_codes", "verbose")  # FAISS parameters that may be 0
TOKEN_SEARCH = {"candidates": 256, "nprobe": 16}  # how coded multi-vector indexes are searched
TOKEN_FIELDS = {"kind", "bits", "pool", "seed", "search"}  # what decides the content of one


class IndexSpec(Part):
    """A FAISS index by its factory string, with its training and search settings.

    The exact indexes of sparse and multi-vector models have no settings; `bits` makes a
    multi-vector index small.

    Example:
        >>> IndexSpec(factory="IVF256,PQ48", search="nprobe=16").metric
        'auto'
        >>> IndexSpec(kind="multi_vector", bits=2, pool=3).as_dict()["search"]
        'candidates=256,nprobe=16'
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
        description="FAISS parameters set before documents are added, such as efConstruction=200",
    )
    search: str = Field(
        default="",
        description=(
            "FAISS parameters for searching, such as nprobe=16 or efSearch=128; of a multi-vector "
            "index with bits, candidates (documents scored) and nprobe (centroids a query token)"
        ),
    )
    threads: Count = Field(
        default=0,
        le=1024,
        description=(
            "threads that add documents (0: all); HNSW builds the same graph twice only with 1"
        ),
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
        for name in given:
            if self.kind == "faiss" and name in ("bits", "pool"):
                raise ValueError(
                    f"{name} is for kind: multi_vector; the factory says how small a dense index is"
                )
            if self.kind == "multi_vector" and not coded and name in TOKEN_FIELDS:
                raise ValueError(f"{name} needs bits: 8, 4, 2 or 1, as the index is exact without")
            if self.kind != "faiss" and not (coded and name in TOKEN_FIELDS):
                why = "" if coded else ": it is exact"
                raise ValueError(f"an index of kind {self.kind} has no {name}{why}")
        if coded:
            token_search(self.search)
        return self

    @property
    def model_kind(self) -> str:
        """The kind of model whose vectors are indexed."""
        return "dense" if self.kind == "faiss" else self.kind

    def as_dict(self) -> dict[str, Any]:
        """The settings that decide the index's content, as written to its manifest."""
        if self.bits is not None:
            search = ",".join(f"{name}={n}" for name, n in token_search(self.search).items())
            return self.model_dump(include=TOKEN_FIELDS) | {"search": search}
        if self.kind != "faiss":
            return {"kind": self.kind}
        # manifests of older indexes have no `dimensions`
        absent = {"kind", "bits", "pool"} | (set() if self.dimensions else {"dimensions"})
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


def token_search(parameters: str) -> dict[str, int]:
    """Read how a coded multi-vector index is searched; what is not given is as in `TOKEN_SEARCH`.

    Example:
        >>> token_search("nprobe=8")
        {'candidates': 256, 'nprobe': 8}

    Raises:
        ValueError: naming the parameter.
    """
    check_parameters(parameters)
    found = dict(TOKEN_SEARCH)
    for part in filter(None, parameters.replace(" ", "").split(",")):
        name, _, number = part.partition("=")
        if name not in found or not number.isdecimal():
            raise ValueError(
                f"parameter {part!r}: a multi-vector index has candidates=… and nprobe=…, integers"
            )
        found[name] = int(number)
    return found


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
