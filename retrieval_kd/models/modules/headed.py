"""What the encoders with modules of our own share: how they are marked, saved and loaded."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any, ClassVar

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.model import BaseModel
from sentence_transformers.base.modules import Module

from retrieval_kd.files import read_json, write_json

MARK = "student"  # the key in config_sentence_transformers.json that names our class
FOLDER = "heads"
WHERE = ("token", "cache_folder", "revision", "local_files_only")  # arguments of loading


class OwnModule(Module):
    """A module with weights, saved and loaded like Sentence Transformers' own."""

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **_: Any) -> None:
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **more: Any) -> Any:
        where = {name: more[name] for name in ("subfolder", *WHERE) if name in more}
        config = cls.load_config(model_name_or_path, **where)
        return cls.load_torch_weights(model_name_or_path, model=cls(**config), **where)


class MarkedEncoder(BaseModel):
    """A mixin for models with modules of our own: names its class, and finds these modules."""

    student: ClassVar[str]
    own_modules: ClassVar[tuple[type[Module], ...]] = ()

    def _get_model_config(self) -> dict[str, Any]:
        return {**super()._get_model_config(), MARK: self.student}

    def _load_module_class_from_ref(self, class_ref: str, *args: Any, **more: Any) -> type:
        # by the class's name alone: a saved model names the module that it was saved from
        own = {k.__name__: k for k in self.own_modules}.get(class_ref.rpartition(".")[2])
        return own or super()._load_module_class_from_ref(class_ref, *args, **more)


class CodedEncoder(MarkedEncoder):
    """A mixin for models that Sentence Transformers has no module for.

    The modules' code is saved beside their weights: plain Sentence Transformers loads the folder
    with `trust_remote_code=True`, our class without that.
    """

    def save(self, path: str, *args: Any, **more: Any) -> None:
        super().save(path, *args, **more)
        listed = Path(path) / "modules.json"
        modules = read_json(listed, kind=list)
        for own in self.own_modules:
            code = Path(inspect.getfile(own))
            for module in modules:
                if module["type"].endswith(f".{own.__name__}"):
                    module["type"] = f"{code.stem}.{own.__name__}"
                    shutil.copyfile(code, Path(path) / code.name)
        write_json(listed, modules)


class HeadedEncoder(MarkedEncoder, SentenceTransformer):
    """A dense encoder, and `heads`: layers that its embeddings do not pass through.

    It is saved as the dense encoder, with a folder `heads/`. Plain `SentenceTransformer` loads the
    encoder, with the same embeddings, and ignores the heads.
    """

    heads_class: ClassVar[type[OwnModule]]

    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        heads: OwnModule | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(model_name_or_path, **arguments)
        if heads is None:
            assert model_name_or_path is not None
            where = {name: arguments[name] for name in WHERE if name in arguments}
            heads = self.heads_class.load(model_name_or_path, subfolder=FOLDER, **where)
        self.heads = heads.to(self.device, self.dtype)
        self.heads.on_model_ready(self)

    def save(self, path: str, *args: Any, **more: Any) -> None:
        heads = self._modules.pop(FOLDER)
        try:
            super().save(path, *args, **more)
        finally:
            self._modules[FOLDER] = heads
        (Path(path) / FOLDER).mkdir(exist_ok=True)
        self.heads.save(str(Path(path) / FOLDER))
