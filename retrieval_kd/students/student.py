"""What every kind of student does in training: represent texts, and score the representations.

Each kind has a file of its own in this folder. A new kind is a class with the members of `Student`,
a line in `student_of`, one in `make_student`, and its entries in `options.py`; it inherits nothing.
One that trains without a transformer has the members of `TableStudent` too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.models.modules.adapter import AdapterEncoder
from retrieval_kd.models.modules.asymmetric import AsymmetricEncoder
from retrieval_kd.models.modules.interaction import InteractionEncoder
from retrieval_kd.models.modules.multi_function import MultiFunctionEncoder
from retrieval_kd.models.modules.residual import ResidualEncoder
from retrieval_kd.models.modules.token_table import SaturatedEmbedding, TokenBags
from retrieval_kd.students.adapter import AdapterStudent
from retrieval_kd.students.asymmetric import AsymmetricStudent
from retrieval_kd.students.dense import DenseStudent, Representations
from retrieval_kd.students.interaction import InteractionStudent
from retrieval_kd.students.multi_function import MultiFunctionStudent
from retrieval_kd.students.multi_vector import MultiVectorStudent
from retrieval_kd.students.residual import ResidualStudent
from retrieval_kd.students.sparse import SparseStudent
from retrieval_kd.students.static import StaticStudent
from retrieval_kd.students.tables import FrozenModel, Halves


class Student(Protocol):
    """A model, and how it turns queries and documents into score matrices."""

    model: Any
    temperature: float
    """The usual divisor of its scores in a softmax."""

    def represent(self, features: dict[str, Tensor], side: str) -> Representations:
        """Represent tokenised texts; `side` is "query" or "document"."""

    def scores(
        self, queries: Representations, documents: Representations, dimensions: int | None = None
    ) -> dict[str, Tensor]:
        """Return score matrices (B, M) by name: "score", and the parts of a student that has some.

        With `dimensions`, only the first `dimensions` of each vector are compared (Matryoshka).
        """


@runtime_checkable
class TableStudent(Student, Protocol):
    """A student of token tables and frozen vectors: no transformer runs while it is trained."""

    @property
    def vectors(self) -> list[nn.Parameter]:
        """The parameters trained with the common learning rate."""

    @property
    def weights(self) -> list[nn.Parameter]:
        """The parameters trained with the learning rate of heads."""

    @property
    def frozen(self) -> FrozenModel | None:
        """The model whose vectors `represent` finds in its features as "base"."""

    @property
    def halves(self) -> Halves | None:
        """The halves of its vectors, which are weighed before training."""

    def bags(self, texts: Iterable[str], side: str) -> TokenBags | None:
        """Return the tokens of texts that `represent` reads; None: it reads none of this side."""

    def settle(self) -> None:
        """Write what was trained into the model."""


def student_of(model: Any) -> Student:
    """Wrap a Sentence Transformers model as the student of its kind.

    Raises:
        InputError: no kind of student has such a model.
    """
    if isinstance(model, MultiVectorEncoder):
        return MultiVectorStudent(model)
    if isinstance(model, SparseEncoder):
        return SparseStudent(model)
    if isinstance(model, MultiFunctionEncoder):
        return MultiFunctionStudent(model)
    if isinstance(model, InteractionEncoder):
        return InteractionStudent(model)
    if isinstance(model, AsymmetricEncoder):
        return AsymmetricStudent(model)
    if isinstance(model, ResidualEncoder):
        return ResidualStudent(model)
    if isinstance(model, AdapterEncoder):
        return AdapterStudent(model)
    if isinstance(model, SentenceTransformer):
        is_static = isinstance(model[0], StaticEmbedding | SaturatedEmbedding)
        return StaticStudent(model) if is_static else DenseStudent(model)
    raise InputError(
        f"a {type(model).__name__} is not a student",
        remedy="give a SentenceTransformer, SparseEncoder or MultiVectorEncoder",
    )
