"""The peer's own backends, in an interpreter that they run in; `Peer` asks it to work in turns.

Sentence Transformers runs ONNX and OpenVINO through optimum, whose releases stop at transformers
4.57 (optimum-onnx) and 5.5 (optimum-intel), so they cannot share an environment with this package:

    python3.11 -m venv peer
    peer/bin/pip install "sentence-transformers>=6.2,<7" "transformers==4.57.*" onnx onnxruntime \
        "optimum==2.1.*" optimum-onnx "optimum-intel==1.27.*" openvino nncf "datasets<4.5"

This file imports nothing of the package, because the other interpreter runs it as a script.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BACKENDS = ("onnx", "onnx int8", "openvino", "openvino int8")
SETTINGS: dict[str, dict[str, Any]] = {
    "onnx": {"backend": "onnx", "model_kwargs": {"provider": "CPUExecutionProvider"}},
    "openvino": {"backend": "openvino"},
}


class Peer:
    """Another interpreter with the peer's backends.

    Args:
        python: its path.
        kind: "CrossEncoder" or "SentenceTransformer".
        folder: the model.
        inputs: pairs or texts, by the name of a workload.
    """

    def __init__(
        self,
        python: str,
        kind: str,
        folder: str,
        inputs: dict[str, Sequence[Any]],
        max_length: int,
    ) -> None:
        self._files = Path(tempfile.mkdtemp(prefix="peer-"))
        job = {"kind": kind, "folder": folder, "inputs": inputs, "max_length": max_length}
        (self._files / "job.json").write_text(json.dumps(job))
        self._process = subprocess.Popen(
            [python, __file__, str(self._files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self._files / "log").open("w"),
            text=True,
        )
        self.backends = list(self._read()["backends"])

    def run(self, backend: str, workload: str) -> np.ndarray:
        """Scores or vectors of one round."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{backend}\t{workload}\n")
        self._process.stdin.flush()
        self._read()
        return np.load(self._files / "result.npy")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("peer: "):  # libraries print there too
                return json.loads(line.removeprefix("peer: "))
        raise RuntimeError((self._files / "log").read_text()[-2_000:])


def serve(files: Path) -> None:
    """Load every backend that loads, then run one for each line of the input."""
    job = json.loads((files / "job.json").read_text())
    models = {}
    for backend in BACKENDS:
        try:
            models[backend] = load(backend, job, files)
            for inputs in job["inputs"].values():
                work(models[backend], job["kind"], inputs)
        except Exception as error:  # a backend that fails is left out, and the log says why
            models.pop(backend, None)
            print(f"{backend}: {error!r}", file=sys.stderr)
    print("peer:", json.dumps({"backends": list(models)}), flush=True)
    for line in sys.stdin:
        backend, workload = line.strip().split("\t")
        result = work(models[backend], job["kind"], job["inputs"][workload])
        np.save(files / "result.npy", result)
        print("peer:", json.dumps({}), flush=True)


def load(backend: str, job: dict[str, Any], files: Path) -> Any:
    """Load the model; an int8 one is first quantised as Sentence Transformers' pages say."""
    import sentence_transformers as library

    kind = getattr(library, job["kind"])
    plain, _, int8 = backend.partition(" ")
    settings = SETTINGS[plain]
    folder = str(files / plain)
    if not Path(folder).exists():
        shutil.copytree(job["folder"], folder)
        kind(folder, device="cpu", **settings).save_pretrained(folder)
    if int8:
        model = kind(folder, device="cpu", **settings)
        if plain == "onnx":
            library.export_dynamic_quantized_onnx_model(model, "avx512_vnni", folder)
        else:
            inputs = next(iter(job["inputs"].values()))
            # with the very texts that are timed, which is more than a user has
            texts = [" ".join(one) if isinstance(one, list) else one for one in inputs]
            (files / "texts").mkdir(exist_ok=True)
            rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            (files / "texts" / "train.jsonl").write_text(rows)
            library.export_static_quantized_openvino_model(
                model, None, folder, str(files / "texts"), "default", "train", "text"
            )
        name = next(
            str(path.relative_to(folder))
            for path in Path(folder).rglob("*")
            if path.suffix in (".onnx", ".xml") and "int8" in path.name
        )
        kwargs = {**settings.get("model_kwargs", {}), "file_name": name}
        settings = {**settings, "model_kwargs": kwargs}
    model = kind(folder, device="cpu", **settings)
    model.max_seq_length = job["max_length"]
    return model


def work(model: Any, kind: str, inputs: list[Any]) -> np.ndarray:
    if kind == "SentenceTransformer":
        return model.encode_document(inputs, show_progress_bar=False)
    import torch

    return model.predict(inputs, activation_fn=torch.nn.Identity())


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
