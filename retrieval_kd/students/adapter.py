"""The adapter student: a frozen encoder and a linear map of its vectors, for both sides.

It is trained from cached vectors, and an index of the encoder's vectors becomes one of the
student's by one product of matrices: nothing is encoded again. The map may be to fewer dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from torch import Tensor, nn

from retrieval_kd.data.texts import Texts
from retrieval_kd.errors import InputError
from retrieval_kd.models.encode import document_vectors
from retrieval_kd.models.load import load_encoder, model_digest
from retrieval_kd.models.modules.adapter import AdapterEncoder
from retrieval_kd.models.projection import Start, fit_projection
from retrieval_kd.students.dense import Representations, prompts_of, score_matrix, similarity_of
from retrieval_kd.students.tables import FrozenModel


def make_adapter(
    model_spec: str,
    documents: Texts | None = None,
    *,
    max_length: int | None = None,
    dimensions: int | None = None,
    start: Start | None = None,
    rank: int | None = None,
) -> AdapterEncoder:
    """Put a linear map W (E, D) after an encoder, or load an adapter.

    Args:
        model_spec: a dense encoder, which stays as it is, or a saved adapter, which keeps its map.
        documents: the collection, to whose vectors in the encoder the map is fitted.
        max_length: tokens that the encoder reads.
        dimensions: E; by default the encoder's own, D.
        start: what W is before training: "pca", "whitening" or "half_whitening" of the documents'
            vectors (`fit_projection`). By default the identity, and with fewer dimensions
            "half_whitening".
        rank: train a change of this rank, W = start + B A; by default the whole matrix W.

    Raises:
        InputError: the rank or E is larger than the vectors, the encoder cuts its vectors, or
            documents are needed and missing.
    """
    model = load_encoder(model_spec, max_length=max_length, dtype=torch.float32)
    made: AdapterEncoder
    if isinstance(model, AdapterEncoder):
        made = model
    else:
        if model.truncate_dim is not None:  # Sentence Transformers cuts after all modules
            raise InputError(
                f"an adapter reads an encoder's whole vectors, and {model_spec} cuts them to "
                f"{model.truncate_dim} dimensions",
                remedy="take truncate_dim out of its config_sentence_transformers.json, and give "
                "the adapter `dimensions`",
            )
        size = int(model.get_embedding_dimension() or 0)
        fewer = dimensions is not None and dimensions != size
        weight = torch.eye(size)
        if fewer or start is not None:
            if documents is None:
                raise InputError(
                    "an adapter's start is fitted to the collection", remedy="give its `documents`"
                )
            vectors = document_vectors(model_spec, documents, max_length=max_length)
            width = size if dimensions is None else dimensions
            fitted = fit_projection(vectors, width, start or "half_whitening")
            weight = torch.from_numpy(fitted)
        made = _new(model, model_spec, weight)
    size = min(made.dense.in_features, made.dense.out_features)
    if rank is not None and rank > size:
        raise InputError(
            f"a change of vectors of {size} dimensions has no rank of {rank}",
            remedy=f"give a rank of at most {size}, or none",
        )
    made.rank = rank
    made.requires_grad_(False)
    made.dense.requires_grad_(True)
    return made


def _new(encoder: SentenceTransformer, model_spec: str, weight: Tensor) -> AdapterEncoder:
    similarity, (out, size) = similarity_of(encoder), weight.shape
    dense = Dense(size, out, bias=False, activation_function=nn.Identity(), init_weight=weight)
    made = AdapterEncoder(
        modules=[*encoder, dense, *([Normalize()] if similarity == "cosine" else [])],
        base_digest=model_digest(model_spec),
        similarity_fn_name=similarity,
        prompts=prompts_of(encoder),
        default_prompt_name=encoder.default_prompt_name,
        device=str(encoder.device),
    )
    made.base_spec = model_spec
    return made.eval()


class AdapterStudent:
    """Scores are cosines or dot products of W e(q) and W e(d), e the frozen encoder."""

    halves = None

    def __init__(self, model: AdapterEncoder) -> None:
        self.model = model
        self.frozen = FrozenModel(
            model.base_spec, model.base_digest, max_length=model.encoder.max_seq_length
        )
        self.similarity = similarity_of(model)
        self.temperature = {"cosine": 0.05, "dot": 1.0}[self.similarity]
        weight = model.dense.linear.weight
        self.factors = list[nn.Parameter]()
        if model.rank is not None:  # as LoRA starts: https://arxiv.org/abs/2106.09685
            size = (model.rank, weight.shape[1])
            down = torch.randn(size, generator=torch.Generator().manual_seed(0)) / size[1] ** 0.5
            up = torch.zeros(weight.shape[0], model.rank)
            self.factors = [nn.Parameter(down), nn.Parameter(up)]

    @property
    def vectors(self) -> list[nn.Parameter]:
        """The parameters trained with the common learning rate."""
        return self.factors or list(self.model.dense.parameters())

    @property
    def weights(self) -> list[nn.Parameter]:
        """The parameters trained with the learning rate of heads."""
        return []

    def bags(self, texts: Iterable[str], side: str) -> None:
        """Return no tokens: the encoder's vectors are all that is read."""

    def represent(self, features: dict[str, Tensor], side: str) -> Representations:
        """`vector (n, E)`; `features` has the encoder's vectors (n, D) as "base"."""
        return {"vector": features["base"] @ self._map().T}

    def scores(
        self, queries: Representations, documents: Representations, dimensions: int | None = None
    ) -> dict[str, Tensor]:
        """`score (B, M)`."""
        left, right = queries["vector"][:, :dimensions], documents["vector"][:, :dimensions]
        return {"score": score_matrix(left, right, self.similarity)}

    def settle(self) -> None:
        """Write the map into the model's one matrix."""
        self.model.dense.linear.weight.data = self._map().detach().clone()

    def _map(self) -> Tensor:
        """W (E, D)."""
        weight = self.model.dense.linear.weight
        if not self.factors:
            return weight
        down, up = self.factors
        return weight.detach() + up @ down
