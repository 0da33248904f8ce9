"""The asymmetric encoder: a table of token vectors for queries, another model for documents."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import nn

from retrieval_kd.files import read_json, write_json
from retrieval_kd.models.modules import token_table
from retrieval_kd.models.modules.headed import MarkedEncoder
from retrieval_kd.models.modules.residual import ResidualEncoder
from retrieval_kd.models.modules.token_table import ResidualEmbedding

DIGEST = "document_digest"  # the key in config_sentence_transformers.json
CODE = Path(token_table.__file__)
OWN = f"{CODE.stem}.{ResidualEmbedding.__name__}"


class AsymmetricEncoder(MarkedEncoder, SentenceTransformer):
    """A `SentenceTransformer` whose only module is a `Router`; documents are another model's.

    Plain `SentenceTransformer` loads it. Over a residual student the module's code is saved beside
    its weights, for `trust_remote_code=True`; this class loads it without that.

    Args:
        document_digest: the digest of the model that the documents' side is, by which its vectors
            and indexes are found.
        base_spec: what loads that model, or this one; not saved.
    """

    student: ClassVar[str] = "asymmetric"
    _module_classes: Mapping[str, type[nn.Module]] = {OWN: ResidualEmbedding}

    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        document_digest: str = "",
        base_spec: str = "",
        **arguments: Any,
    ) -> None:
        self.document_digest, self.base_spec = (
            document_digest,
            base_spec or model_name_or_path or "",
        )
        super().__init__(model_name_or_path, **arguments)

    @property
    def queries(self) -> StaticEmbedding:
        """The module for queries."""
        [module] = self._modules_for("query")
        assert isinstance(module, StaticEmbedding)
        return module

    @property
    def residual(self) -> ResidualEmbedding | None:
        """The module for documents, if they are a residual student's."""
        module = self._modules_for("document")[0]
        return module if isinstance(module, ResidualEmbedding) else None

    def document_model(self) -> SentenceTransformer:
        """Return the model of documents alone. It shares the weights."""
        modules = self._modules_for("document")
        return (SentenceTransformer if self.residual is None else ResidualEncoder)(
            modules=modules,
            similarity_fn_name=self.similarity_fn_name,
            prompts={name: text or "" for name, text in self.prompts.items()},
            default_prompt_name=self.default_prompt_name,
            truncate_dim=self.truncate_dim,
            device=str(self.device),
        ).eval()

    def _modules_for(self, side: str) -> list[Any]:
        router = self[0]
        assert isinstance(router, Router)
        modules: Any = router.sub_modules[side]
        return list(modules)

    @property
    def max_seq_length(self) -> int | None:
        """Tokens of a document; a query is read whole."""
        length: int | None = self._modules_for("document")[0].max_seq_length
        return length

    @max_seq_length.setter
    def max_seq_length(self, length: int | None) -> None:
        self._modules_for("document")[0].max_seq_length = length

    def save(self, path: str, *args: Any, **more: Any) -> None:
        super().save(path, *args, **more)
        listed = Path(path) / Router.config_file_name
        router = read_json(listed)
        own = {
            n for n, t in router["types"].items() if t.endswith(f".{ResidualEmbedding.__name__}")
        }
        if own:
            router["types"] |= dict.fromkeys(own, OWN)
            shutil.copyfile(CODE, Path(path) / CODE.name)
            write_json(listed, router)

    def _get_model_config(self) -> dict[str, Any]:
        return {**super()._get_model_config(), DIGEST: self.document_digest}

    def _parse_model_config(self, model_config: dict[str, Any]) -> None:
        super()._parse_model_config(model_config)
        self.document_digest = str(model_config[DIGEST])


def document_side(model: SentenceTransformer) -> SentenceTransformer:
    """Return the model that makes a model's document vectors: nearly always itself."""
    return model.document_model() if isinstance(model, AsymmetricEncoder) else model
