"""What index to build, as YAML: `indexes/*.yaml`. How it is built is in `build.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from retrieval_kd.schema import read_yaml, validate


class IndexSpec(BaseModel):
    """A FAISS index by its factory string, and how it is trained and searched.

    Or, without any of that, the exact index of a sparse or multi-vector model.

    Example:
        >>> IndexSpec(factory="IVF256,PQ48", search="nprobe=16").metric
        'auto'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["faiss", "sparse", "multi_vector"] = Field(
        default="faiss",
        description="faiss: of a dense model; sparse, multi_vector: exact, of a model of that kind",
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
        description="of the model's vectors the first so many alone (Matryoshka); none: all",
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

    @model_validator(mode="after")
    def _of_faiss(self) -> IndexSpec:
        given = self.model_fields_set - {"kind"}
        if self.kind != "faiss" and given:
            raise ValueError(f"an index of kind {self.kind} has no {sorted(given)[0]}: it is exact")
        return self

    @property
    def model_kind(self) -> str:
        """The kind of model that it indexes."""
        return "dense" if self.kind == "faiss" else self.kind

    def as_dict(self) -> dict[str, Any]:
        """What decides the index's content; FAISS's settings only for a FAISS index."""
        if self.kind != "faiss":
            return {"kind": self.kind}
        # said only where it is given: manifests of older indexes do not have it
        silent = {"kind"} if self.dimensions else {"kind", "dimensions"}
        return self.model_dump(exclude=silent)


def spec_for(model_kind: str) -> IndexSpec:
    """The specification that fits any model of a kind: exact search."""
    return IndexSpec() if model_kind == "dense" else IndexSpec(kind=model_kind)  # type: ignore[arg-type]


def load_spec(path: str | Path) -> IndexSpec:
    """Read a specification; an unknown key is an error that names the nearest known one.

    A path that is not there is looked up in the project's own folder: `indexes/hnsw.yaml` works
    from anywhere.
    """
    shipped = Path(__file__).parents[2] / path
    found = shipped if not Path(path).exists() and shipped.exists() else path
    return validate(IndexSpec, read_yaml(found), path)
