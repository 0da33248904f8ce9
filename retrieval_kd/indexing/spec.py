"""What index to build, as YAML: `indexes/*.yaml`. How it is built is in `build.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from retrieval_kd.schema import read_yaml, validate


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
    """Read a specification; an unknown key is an error that names the nearest known one.

    A path that is not there is looked up in the project's own folder: `indexes/hnsw.yaml` works
    from anywhere.
    """
    shipped = Path(__file__).parents[2] / path
    found = shipped if not Path(path).exists() and shipped.exists() else path
    return validate(IndexSpec, read_yaml(found), path)
