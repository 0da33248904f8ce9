"""Index specifications: the YAML files `indexes/*.yaml`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from retrieval_kd.schema import LARGEST, Count, Dimensions, Part, Seed, read_yaml, validate

MOST_CELLS = 2**24
LINKS = range(4, 513)  # of a document in a graph: FAISS crashes with fewer than two
FROM_ZERO = ("ht", "max_codes", "verbose")  # FAISS parameters that may be 0


class IndexSpec(Part):
    """A FAISS index by its factory string, with its training and search settings.

    The exact indexes of sparse and multi-vector models have no settings.

    Example:
        >>> IndexSpec(factory="IVF256,PQ48", search="nprobe=16").metric
        'auto'
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
        description="FAISS parameters for searching, such as nprobe=16 or efSearch=128",
    )
    threads: Count = Field(
        default=0,
        le=1024,
        description=(
            "threads that add documents (0: all); HNSW builds the same graph twice only with 1"
        ),
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
    def _exact_kinds_have_no_settings(self) -> IndexSpec:
        set_fields = self.model_fields_set - {"kind"}
        if self.kind != "faiss" and set_fields:
            raise ValueError(
                f"an index of kind {self.kind} has no {sorted(set_fields)[0]}: it is exact"
            )
        return self

    @property
    def model_kind(self) -> str:
        """The kind of model whose vectors are indexed."""
        return "dense" if self.kind == "faiss" else self.kind

    def as_dict(self) -> dict[str, Any]:
        """The settings that decide the index's content, as written to its manifest."""
        if self.kind != "faiss":
            return {"kind": self.kind}
        # manifests of older indexes have no `dimensions`
        absent = {"kind"} if self.dimensions else {"kind", "dimensions"}
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
