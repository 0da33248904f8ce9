"""What a model's files say of it, without loading the model."""

from __future__ import annotations

from retrieval_kd.models.load import IMITATES, MODULES, TRAINING, config_of, declared


def vector_size(spec: str) -> int | None:
    """Read the size of an encoder's vectors; None where its configuration does not say it."""
    modules, config = declared(spec, MODULES), config_of(spec)
    after = [str(module.get("type")).rpartition(".")[2] for module in modules[1:]]
    paths = [module.get("path") for module in modules[1:]]
    pooling = declared(spec, f"{paths[0]}/config.json") if paths else {"pooling_mode": "mean"}
    # "pooling_mode" is a name or a list; earlier versions wrote "pooling_mode_NAME": true
    modes = [v for k, v in pooling.items() if k.startswith("pooling_mode") and v]
    single = len(modes) == 1 and not isinstance(modes[0], list)
    if not single or not set(after) <= {"Pooling", "Dense", "Normalize"}:
        return None
    dense = [path for path, name in zip(paths, after, strict=True) if name == "Dense"]
    if dense:
        return declared(spec, f"{dense[-1]}/config.json").get("out_features")
    return getattr(config, "hidden_size", None)


def imitated_digests(spec: str) -> list[str]:
    """Digests of the models whose document vectors a model's last training imitated."""
    imitated = declared(spec, TRAINING).get(IMITATES)
    return list(map(str, imitated.values())) if isinstance(imitated, dict) else []
