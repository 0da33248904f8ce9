"""Graphs: models compiled by OpenVINO for a CPU, in bfloat16, float32 or int8, exported once.

Sentence Transformers has OpenVINO through optimum-intel, which does not run with transformers
above 5.5; a graph is converted from the loaded model, so it keeps changes such as a shortened last
layer. Batches run in as many streams as there are threads: while some compute, others are
tokenised.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrieval_kd.data.collection import open_collection
from retrieval_kd.errors import InputError, log
from retrieval_kd.files import cache_dir, cached, digest_text
from retrieval_kd.hardware import dtype_name
from retrieval_kd.models.batches import Features

BACKENDS = ("torch", "openvino", "openvino-int8")
CALIBRATION = 192  # pairs or texts; more change no range by much
# chosen on dev queries of squad and wikiqa (docs/experiments/scoring.md): how much of the range of
# activations is moved into the weights, and the layers that stay as they are
SMOOTHING, UNQUANTISED = 0.9, r".*attention\.output.*"
VERSION = 2  # raise it when the same model gives another graph


def chosen_backend(name: str | None = None) -> str:
    """The backend with this name; by default `$RETRIEVAL_KD_BACKEND`, else torch.

    Raises:
        InputError: it does not exist, or its packages are not installed.
    """
    backend = name or os.environ.get("RETRIEVAL_KD_BACKEND") or "torch"
    if backend not in BACKENDS:
        source = "" if name else "RETRIEVAL_KD_BACKEND: "
        raise InputError(
            f"{source}no backend {backend!r}", remedy=f"choose from {', '.join(BACKENDS)}"
        )
    needed = {"torch": (), "openvino": ("openvino",)}.get(backend, ("openvino", "nncf"))
    for package in needed:
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"the backend {backend} needs the package {package}",
                remedy="pip install 'retrieval_kd[openvino]'",
            )
    return backend


def precision(backend: str, dtype: torch.dtype) -> str:
    """How a backend computes, as keys and manifests name it.

    Example:
        >>> precision("torch", torch.float32), precision("openvino", torch.bfloat16)
        ('float32', 'openvino bfloat16')
        >>> precision("openvino-int8", torch.float32).split()[:3]
        ['openvino', 'int8', 'float32']
    """
    if backend == "torch":
        return dtype_name(dtype)
    if backend == "openvino":
        return f"openvino {dtype_name(dtype)}"
    # the texts that its ranges are calibrated on are Python's own library
    return f"openvino int8 {dtype_name(dtype)} Python {'.'.join(map(str, sys.version_info[:3]))}"


def silent_openvino() -> Any:
    """Import OpenVINO without the package by which it tells Intel what is converted, or asks to.

    OpenVINO and NNCF have a stub for where that package is missing.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def calibration_texts() -> tuple[list[str], list[str]]:
    """Queries and a relevant document of each, from the built-in collection."""
    collection = open_collection("python-api")
    queries, qrels = collection.query_texts("train"), collection.qrels("train")
    chosen = sorted(queries)[:: max(1, len(queries) // CALIBRATION)][:CALIBRATION]
    documents = [collection.documents[max(qrels[id], key=qrels[id].__getitem__)] for id in chosen]
    return [queries[id] for id in chosen], [document.full for document in documents]


class Graph:
    """One model with one output, ready to run.

    Args:
        model: makes the Sentence Transformers model in float32; called only to export it.
        output: the name of its output, such as "scores".
        digest: of everything that makes the model.
        samples: makes inputs of single texts to trace with, and to find the ranges of int8.

    Raises:
        InputError: OpenVINO does not convert or compile the model.
    """

    def __init__(
        self,
        model: Callable[[], Any],
        output: str,
        *,
        digest: str,
        backend: str,
        dtype: torch.dtype,
        samples: Callable[[], Iterable[Features]],
    ) -> None:
        openvino = silent_openvino()
        threads = torch.get_num_threads()
        small = "int8" in backend
        stamp = precision(backend, torch.float32) if small else backend
        folder = cache_dir() / "graphs" / digest_text(str(VERSION), digest, output, stamp)

        def build(place: Path) -> None:
            log.info("exporting the model to OpenVINO, once")
            made, inputs = model(), list(samples())
            with _quiet(), _named(backend):
                graph = _export(made, output, inputs, small)
            openvino.save_model(graph, place / "graph.xml", compress_to_fp16=False)

        cached(folder, build)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        with _named(backend):
            self._compiled = openvino.Core().compile_model(folder / "graph.xml", "CPU", settings)
        self._idle = [self._compiled.create_infer_request() for _ in range(threads + 1)]

    def run(self, batches: Iterable[tuple[np.ndarray, Features]], out: np.ndarray) -> np.ndarray:
        """Compute batches of (rows, inputs (B, L)) and put their results (B, …) in `out[rows]`.

        The oldest batch is waited for when all requests are busy. OpenVINO's own queue calls back
        from its threads, which can block for ever against the destruction of a queue.
        """
        busy: deque[tuple[Any, np.ndarray]] = deque()

        def finish_oldest() -> None:
            request, rows = busy.popleft()
            self._idle.append(request)
            request.wait()
            out[rows] = request.get_output_tensor(0).data.reshape(len(rows), *out.shape[1:])

        try:
            for rows, inputs in batches:
                if not self._idle:
                    finish_oldest()
                request = self._idle.pop()
                request.start_async(inputs)
                busy.append((request, rows))
        finally:
            while busy:
                finish_oldest()
        return out


class _Traced(nn.Module):
    """A Sentence Transformers model as a function of tensors."""

    def __init__(self, model: Any, names: list[str], output: str) -> None:
        super().__init__()
        self.model, self.names, self.output = model, names, output

    def forward(self, *tensors: Tensor) -> Tensor:
        features = dict(zip(self.names, tensors, strict=True))
        return self.model({**features, "modality": "text"})[self.output]


def _export(model: Any, output: str, samples: list[Features], small: bool) -> Any:
    openvino = silent_openvino()
    names = list(samples[0])
    example = []
    for name in names:  # two texts, one with padding: a mask of ones would be traced away
        values = torch.from_numpy(np.stack([samples[0][name][:8]] * 2))
        if name == "attention_mask":
            values[1, 5:] = 0
        example.append(values)
    open_shape = openvino.PartialShape([-1, -1])
    traced = _Traced(model, names, output).eval()
    with torch.inference_mode():
        graph = openvino.convert_model(
            traced,
            example_input=tuple(example),
            input=[(open_shape, openvino.Type.i64) for _ in names],
        )
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    if not small:
        return graph
    import nncf

    data = nncf.Dataset([{name: row[name][None] for name in names} for row in samples])
    smoothing = nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING)
    return nncf.quantize(
        graph,
        data,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
        ignored_scope=nncf.IgnoredScope(patterns=[UNQUANTISED], validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smoothing),
    )


@contextlib.contextmanager
def _named(backend: str) -> Iterator[None]:
    """Report a model that OpenVINO does not run; a full disk or no memory is not the model's."""
    try:
        yield
    except (OSError, MemoryError, InputError):
        raise
    except Exception as error:  # torch's tracer, OpenVINO and NNCF each have their own
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(
            f"the backend {backend} does not run this model: {last}",
            remedy="score with ?backend=torch, or leave RETRIEVAL_KD_BACKEND out",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what tracing and quantising say about themselves."""
    logging.getLogger("nncf").setLevel(logging.ERROR)
    transformers_level = logging.getLogger("transformers").level
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("transformers").setLevel(transformers_level)
