"""The multi-function student: one encoder, and a dense, a lexical and a multi-vector score.

M3-Embedding, Chen et al. 2024, https://arxiv.org/abs/2402.03216. With lexical weights over the
whole vocabulary it is a dense retriever and an expanded sparse one, scored together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.util import maxsim
from torch import Tensor, nn
from torch.nn.functional import normalize

from retrieval_kd.data.folders import atomic_folder
from retrieval_kd.errors import InputError
from retrieval_kd.models.modules.lexical import LexicalEncoder
from retrieval_kd.models.modules.multi_function import MultiFunctionEncoder, MultiFunctionHeads
from retrieval_kd.students.dense import make_dense, score_matrix

WEIGHTS = {"dense": 1.0, "sparse": 0.3, "multi": 1.0}  # of M3's released code
STATES = ("token_embeddings", "input_ids", "attention_mask")


def make_multi_function(
    model_spec: str,
    layers: Sequence[int] | None = None,
    *,
    lexical: str = "own",
    dimensions: int | None = None,
    weights: Mapping[str, float] | None = None,
    main: str = "dense",
    max_length: int | None = None,
    seed: int = 0,
) -> MultiFunctionEncoder:
    """A float32 student with three scores, made of a dense encoder that compares by cosine.

    Args:
        layers: those to keep, from 0; none: all.
        lexical: "own": weights of a text's own tokens, as in M3. "vocabulary": weights of all
            words, as in SPLADE: a matrix of that many rows, which starts as the input embeddings.
        dimensions: of a token's vector; none: those of the encoder's states, as in M3.
        weights: of "dense", "sparse" and "multi" in the integrated score; none: M3's.
        main: the score that is meant where no part is named: "dense" or "integrated".
        seed: of the token vectors' projection, which starts orthogonal.

    Raises:
        InputError: the encoder does not compare by cosine, or a setting is none of those above.
    """
    encoder = make_dense(model_spec, layers, max_length=max_length)
    if isinstance(encoder, MultiFunctionEncoder):
        return encoder
    if str(encoder.similarity_fn_name) != "cosine":
        raise InputError(
            f"{model_spec} does not compare by cosine: its scores and those of the further "
            "functions would be of different scales",
            remedy="start from an encoder whose similarity is cosine",
        )
    given = dict(WEIGHTS if weights is None else weights)
    if lexical not in ("own", "vocabulary") or main not in ("dense", "integrated"):
        raise InputError(
            f"no multi-function student with lexical {lexical!r} and main {main!r}",
            remedy="lexical is own or vocabulary, main is dense or integrated",
        )
    if not given or not set(given) <= set(WEIGHTS):
        raise InputError(
            f"weights are of {sorted(given)}", remedy=f"weigh some of {', '.join(WEIGHTS)}"
        )
    transformer: Any = encoder[0]
    width, tokenizer = transformer.get_embedding_dimension(), encoder.tokenizer
    heads = MultiFunctionHeads(
        width,
        dimensions or width,
        lexical,
        len(transformer.auto_model.get_input_embeddings().weight),
        sorted(tokenizer.all_special_ids),
        [tokenizer.cls_token] if tokenizer.cls_token else [],
        given,
        main,
    )
    first: Any = heads.multi[0]
    nn.init.orthogonal_(first.linear.weight, generator=torch.Generator().manual_seed(seed))
    if lexical == "vocabulary":
        start_vocabulary(heads, encoder)
    made = MultiFunctionEncoder(
        modules=list(encoder.children()),
        heads=heads,
        device=str(encoder.device),
        prompts=_prompts(encoder),
        default_prompt_name=encoder.default_prompt_name,
        similarity_fn_name="cosine",
    )
    return made.eval()


@torch.no_grad()
def start_vocabulary(heads: MultiFunctionHeads, encoder: SentenceTransformer) -> None:
    """Begin the weights of all words as the input embeddings, so that a token means itself.

    The bias takes away the third highest logit, in the median over words of the vocabulary that are
    encoded alone: a token then stands for two or three words, not for nearly all of them.

    Raises:
        InputError: the embeddings are not of the states' dimensions.
    """
    transformer: Any = encoder[0]
    embeddings = transformer.auto_model.get_input_embeddings().weight
    linear: Any = heads.sparse[0].linear  # type: ignore[union-attr]
    if embeddings.shape != linear.weight.shape:
        raise InputError(
            f"input embeddings {tuple(embeddings.shape)} cannot start weights "
            f"{tuple(linear.weight.shape)} of words",
            remedy="use lexical: own",
        )
    linear.weight.copy_(embeddings)
    vocabulary = encoder.tokenizer.get_vocab()
    words = sorted(word for word in vocabulary if word.isalpha() and len(word) > 2) or list(
        vocabulary
    )
    features = encoder.preprocess(words[:: max(1, len(words) // 256)][:256])
    features = {
        k: v.to(encoder.device) if isinstance(v, Tensor) else v for k, v in features.items()
    }
    found = transformer.eval()(features)
    ignored = torch.tensor(heads.ignored, device=found["input_ids"].device)
    own = found["attention_mask"].bool() & ~torch.isin(found["input_ids"], ignored)
    logits = found["token_embeddings"][own].float() @ embeddings.float().T  # (tokens, V)
    nn.init.constant_(linear.bias, -float(logits.topk(3, dim=-1).values[:, -1].median()))


def save_parts(model: MultiFunctionEncoder, folder: str | Path) -> dict[str, Path]:
    """Save each function as a model of its own, with the embeddings that it has in `model`.

    `dense/` loads in plain `SentenceTransformer`, `multi_vector/` in plain `MultiVectorEncoder`,
    `sparse/` in plain `SparseEncoder`. Weights of a text's own tokens are made by no module of
    Sentence Transformers: their folder carries the code of one, for which `SparseEncoder` wants
    `trust_remote_code=True`; `load_retriever` of this package does not.
    """
    device, prompts = str(model.device), _prompts(model)
    given: dict[str, Any] = {
        "device": device,
        "prompts": prompts,
        "default_prompt_name": model.default_prompt_name,
    }
    line = [module for name, module in model.named_children() if name != "heads"]
    heads = model.heads
    sparse: Any = LexicalEncoder if heads.lexical == "own" else SparseEncoder
    parts = {
        "dense": SentenceTransformer(modules=line, similarity_fn_name="cosine", **given),
        "sparse": sparse(modules=[line[0], *heads.sparse], similarity_fn_name="dot", **given),
        "multi_vector": MultiVectorEncoder(
            modules=[line[0], *heads.multi], similarity_fn_name="meanmaxsim", **given
        ),
    }
    with atomic_folder(folder) as whole:
        for name, part in parts.items():
            part.save(str(whole / name), safe_serialization=True)
    return {name: Path(folder) / name for name in parts}


def _prompts(model: SentenceTransformer) -> dict[str, str]:
    return {name: text for name, text in (model.prompts or {}).items() if text}


class MultiFunctionStudent:
    """Scores `dense`, `sparse` and `multi`, and `integrated`, their weighted sum Σ_k w_k s_k.

    All are of comparable scale, as in M3: `dense` is a cosine, `multi` the mean over a query's
    tokens of the best cosine with a document's token, and `sparse`, a dot product without an upper
    end, starts small and has the small weight 0.3. One temperature is usual for all.
    """

    temperature = 0.05

    def __init__(self, model: MultiFunctionEncoder) -> None:
        self.model = model

    def represent(self, features: dict[str, Tensor], side: str) -> dict[str, Tensor]:
        """`vector (n, D)`, `sparse (n, V)`, `tokens (n, L, d)` and `present (n, L)`."""
        first, *others = [m for name, m in self.model.named_children() if name != "heads"]
        state = first(dict(features))
        states = {name: state[name] for name in STATES}
        for module in others:
            state = module(state)
        heads = self.model.heads
        multi = heads.read("multi", states, side)
        return {
            "vector": state["sentence_embedding"].float(),  # (n, D)
            "sparse": heads.read("sparse", states, side)["sentence_embedding"].float(),  # (n, V)
            "tokens": multi["token_embeddings"].float(),  # (n, L, d)
            "present": multi["attention_mask"].bool(),  # (n, L)
        }

    def scores(
        self,
        queries: dict[str, Tensor],
        documents: dict[str, Tensor],
        dimensions: int | None = None,
    ) -> dict[str, Tensor]:
        """`score`, the parts and `integrated`, (B, M) each.

        With `dimensions` there are only `dense` and `multi`: a word is no dimension to leave out.
        """
        query, document = queries["vector"][:, :dimensions], documents["vector"][:, :dimensions]
        dense = score_matrix(query, document, "cosine")  # (B, M)
        multi = mean_max_similarity(queries, documents, dimensions)  # (B, M)
        heads = self.model.heads
        if dimensions is not None:
            found = {"dense": dense, "multi": multi}
            return {"score": dense, **found} if heads.main == "dense" else found
        sparse = queries["sparse"] @ documents["sparse"].T  # (B, M)
        parts = {"dense": dense, "sparse": sparse, "multi": multi}
        parts["integrated"] = torch.stack(
            [weight * parts[name] for name, weight in heads.weights.items()]
        ).sum(0)  # (B, M)
        return {"score": parts[heads.main], **parts}


def mean_max_similarity(
    queries: dict[str, Tensor], documents: dict[str, Tensor], dimensions: int | None = None
) -> Tensor:
    """Mean over a query's tokens of the best cosine with a document's token, (B, M).

    Args:
        queries, documents: unit vectors `tokens (n, L, d)`, of which those count that are
            `present (n, L)`.

    Example:
        >>> import torch
        >>> one = {"tokens": torch.eye(2)[None], "present": torch.tensor([[True, True]])}
        >>> two = {"tokens": torch.eye(2)[None], "present": torch.tensor([[True, False]])}
        >>> mean_max_similarity(one, two).item()
        0.5
    """
    query, document = queries["tokens"], documents["tokens"]
    if dimensions is not None:
        query = normalize(query[..., :dimensions], dim=-1)  # (B, L, d)
        document = normalize(document[..., :dimensions], dim=-1)  # (M, L', d)
    return maxsim(
        query,
        document,
        a_mask=queries["present"],
        b_mask=documents["present"],
        length_normalize=True,
    )
