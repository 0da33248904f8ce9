"""Index specifications: the YAML files `indexes/*.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from retrieval_kd.schema import Part, read_yaml, validate


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
    dimensions: int | None = Field(
        default=None,
        ge=1,
        description="first dimensions of each vector to index (Matryoshka); by default all",
    )
    train_documents: int = Field(
        default=100_000,
        ge=1,
        description="documents (a random sample) to train on, for factories that need training",
    )
    seed: int = Field(default=0, ge=0, description="seed that draws the training sample (no unit)")
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
            "threads that add documents (0: all); HNSW builds the same graph twice only with 1"
        ),
    )

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
