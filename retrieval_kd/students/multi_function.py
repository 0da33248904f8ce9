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
from torch import Tensor, nn

from retrieval_kd.errors import InputError
from retrieval_kd.files import atomic_folder
from retrieval_kd.models.modules.lexical import LexicalEncoder
from retrieval_kd.models.modules.multi_function import MultiFunctionEncoder, MultiFunctionHeads
from retrieval_kd.students.dense import Representations, make_dense, prompts_of, score_matrix
from retrieval_kd.students.multi_vector import max_similarity, tokens_of

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
    """Make a float32 student with three scores from a dense encoder that compares by cosine.

    Args:
        layers: numbers of the layers to keep, counted from 0; by default all.
        lexical: "own": weights of a text's own tokens, as in M3. "vocabulary": weights of all
            words, as in SPLADE: a matrix with a row per word, which starts as the input embeddings.
        dimensions: size of each token's vector; by default that of the encoder's states, as in M3.
        weights: weights of "dense", "sparse" and "multi" in the integrated score; by default M3's.
        main: the part that is `score`: "dense" or "integrated".
        seed: for the token vectors' projection, which starts orthogonal.

    Raises:
        InputError: the encoder does not compare by cosine, or an option has an unknown value.
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
    weights = dict(WEIGHTS if weights is None else weights)
    if lexical not in ("own", "vocabulary") or main not in ("dense", "integrated"):
        raise InputError(
            f"no multi-function student with lexical {lexical!r} and main {main!r}",
            remedy="lexical is own or vocabulary, main is dense or integrated",
        )
    if not weights or not set(weights) <= set(WEIGHTS):
        raise InputError(
            f"weights are of {sorted(weights)}", remedy=f"weigh some of {', '.join(WEIGHTS)}"
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
        weights,
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
        prompts=prompts_of(encoder),
        default_prompt_name=encoder.default_prompt_name,
        similarity_fn_name="cosine",
    )
    return made.eval()


@torch.no_grad()
def start_vocabulary(heads: MultiFunctionHeads, encoder: SentenceTransformer) -> None:
    """Initialise the weights of all words as the input embeddings: a token activates its own word.

    The bias subtracts the third highest logit, the median over words of the vocabulary that are
    encoded alone: a token then activates two or three words, not nearly all of them.
    """
    transformer: Any = encoder[0]
    embeddings = transformer.auto_model.get_input_embeddings().weight
    linear: Any = heads.sparse[0].linear  # type: ignore[union-attr]
    if embeddings.shape != linear.weight.shape:
        raise InputError(
            f"the input embeddings {tuple(embeddings.shape)} do not have the shape of the word "
            f"weights {tuple(linear.weight.shape)}",
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
    output = transformer.eval()(features)
    ignored = torch.tensor(heads.ignored, device=output["input_ids"].device)
    own = output["attention_mask"].bool() & ~torch.isin(output["input_ids"], ignored)
    logits = output["token_embeddings"][own].float() @ embeddings.float().T  # (tokens, V)
    nn.init.constant_(linear.bias, -float(logits.topk(3, dim=-1).values[:, -1].median()))


def save_parts(model: MultiFunctionEncoder, folder: str | Path) -> dict[str, Path]:
    """Save each function as a model of its own, with the same embeddings as in `model`.

    `dense/` loads in plain `SentenceTransformer`, `multi_vector/` in plain `MultiVectorEncoder`,
    `sparse/` in plain `SparseEncoder`. Sentence Transformers has no module for weights of a text's
    own tokens, so that folder carries its code: `SparseEncoder` then needs
    `trust_remote_code=True`, `load_retriever` of this package does not.
    """
    shared: dict[str, Any] = {
        "device": str(model.device),
        "prompts": prompts_of(model),
        "default_prompt_name": model.default_prompt_name,
    }
    line = [module for name, module in model.named_children() if name != "heads"]
    heads = model.heads
    sparse: Any = LexicalEncoder if heads.lexical == "own" else SparseEncoder
    parts = {
        "dense": SentenceTransformer(modules=line, similarity_fn_name="cosine", **shared),
        "sparse": sparse(modules=[line[0], *heads.sparse], similarity_fn_name="dot", **shared),
        "multi_vector": MultiVectorEncoder(
            modules=[line[0], *heads.multi], similarity_fn_name="meanmaxsim", **shared
        ),
    }
    with atomic_folder(folder) as whole:
        for name, part in parts.items():
            part.save(str(whole / name), safe_serialization=True)
    return {name: Path(folder) / name for name in parts}


class MultiFunctionStudent:
    """Scores `dense`, `sparse` and `multi`, and `integrated`, their weighted sum Σ_k w_k s_k.

    All are of comparable scale, as in M3: `dense` is a cosine, `multi` the mean over a query's
    tokens of the best cosine with a document's token, and `sparse`, a dot product without an upper
    end, starts small and has the small weight 0.3. One temperature is usual for all.
    """

    temperature = 0.05

    def __init__(self, model: MultiFunctionEncoder) -> None:
        self.model = model

    def represent(self, features: dict[str, Tensor], side: str) -> Representations:
        """`vector (n, D)`, `sparse (n, V)`, `tokens (n, L, d)` and `present (n, L)`."""
        first, *others = [m for name, m in self.model.named_children() if name != "heads"]
        state = first(dict(features))
        states = {name: state[name] for name in STATES}
        for module in others:
            state = module(state)
        heads = self.model.heads
        return {
            "vector": state["sentence_embedding"].float(),  # (n, D)
            "sparse": heads.read("sparse", states, side)["sentence_embedding"].float(),  # (n, V)
            **tokens_of(heads.read("multi", states, side)),
        }

    def scores(
        self, queries: Representations, documents: Representations, dimensions: int | None = None
    ) -> dict[str, Tensor]:
        """`score`, the parts and `integrated`, (B, M) each.

        With `dimensions` only `dense` and `multi` exist: a word is not a dimension to leave out.
        """
        query, document = queries["vector"][:, :dimensions], documents["vector"][:, :dimensions]
        dense = score_matrix(query, document, "cosine")  # (B, M)
        multi = max_similarity(queries, documents, dimensions, mean=True)  # (B, M)
        heads = self.model.heads
        if dimensions is not None:
            cut = {"dense": dense, "multi": multi}
            return {"score": dense, **cut} if heads.main == "dense" else cut
        sparse = queries["sparse"] @ documents["sparse"].T  # (B, M)
        parts = {"dense": dense, "sparse": sparse, "multi": multi}
        parts["integrated"] = torch.stack(
            [weight * parts[name] for name, weight in heads.weights.items()]
        ).sum(0)  # (B, M)
        return {"score": parts[heads.main], **parts}
