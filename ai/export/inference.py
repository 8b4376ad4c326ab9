"""The bundle's configuration: what `python -m monai.bundle run` runs, and what the node reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ai.train.detection import APART_MM
from ai.train.pipeline import preprocessing
from ai.train.run import Record

Config = dict[str, Any]
_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def inference_config(record: Record) -> Config:
    """``configs/inference.json`` of a trained network.

    Parameters
    ----------
    record : ai.train.run.Record
        Its recipe made the training's transforms, and makes these: they cannot drift apart.

    Returns
    -------
    dict
    """
    whole = record.task == "classification"
    steps = preprocessing(record.recipe.data, whole=whole)
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*.nii.gz'))]",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": dict(record.network),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": _inferer(record),
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(record)},
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": False,
        },
        "run": ["$@evaluator.run()"],
    }


def metadata_config(record: Record, name: str, version: str, training: str) -> Config:
    """``configs/metadata.json``.

    Parameters
    ----------
    record : ai.train.run.Record
    name, version : str
        Of the bundle.
    training : str
        What it was trained on, as one sentence.
    """
    size = list(record.recipe.data.patch)
    window = record.recipe.data.window
    scaled = f"scaled from {list(window)} to [0, 1]" if window else "normalised to mean 0 and standard deviation 1"
    patch = {"spatial_shape": size, "dtype": "float32", "is_patch_data": record.task != "classification"}
    image = {
        "type": "image",
        "format": "hounsfield" if record.modality == "CT" else "magnitude",
        "modality": record.modality,
        "num_channels": len(record.channels),
        "value_range": [0, 1] if window else [],
        "channel_def": {str(n): channel for n, channel in enumerate(record.channels)},
        **patch,
    }
    return {
        "schema": _SCHEMA,
        "version": version,
        "changelog": {version: _came_about(record)},
        "monai_version": _plain(record.packages["monai"]),
        "pytorch_version": _plain(record.packages["torch"]),
        "numpy_version": _plain(record.packages["numpy"]),
        "required_packages_version": {},
        "name": name,
        "task": f"{record.task.capitalize()} on {record.name}",
        "description": f"{record.network['_target_']} for {record.task}. {training}",
        "authors": "to be filled in",
        "copyright": "to be filled in",
        "data_source": record.name,
        "data_type": "nifti",
        "image_classes": f"{', '.join(record.channels)}, {scaled}",
        "label_classes": ", ".join(f"{n} is {output}" for n, output in enumerate(record.outputs)),
        "pred_classes": ", ".join(f"channel {n} is {output}" for n, output in enumerate(record.outputs)),
        "eval_metrics": record.figures,
        "intended_use": "Research. Not for clinical use.",
        "training": {
            "seed": record.seed,
            "fold": record.fold,
            "steps": record.steps,
            "best_step": record.best_step,
            "training_cases": record.training_cases,
            "validation_cases": record.validation_cases,
            "started_from": record.started_from,
            "recipe": asdict(record.recipe),
            "machine": record.machine,
            "packages": record.packages,
            "seconds": round(record.seconds),
        },
        "network_data_format": {"inputs": {"image": image}, "outputs": _outputs(record, patch)},
    }


def _outputs(record: Record, patch: Mapping[str, Any]) -> dict[str, Config]:
    described: Config = {
        "type": "probabilities" if record.task == "classification" else "image",
        "format": record.task,
        "num_channels": len(record.outputs),
        "value_range": [0, 1],
        "channel_def": {str(n): output for n, output in enumerate(record.outputs)},
        **patch,
    }
    if record.task != "detection":
        return {"pred": described}
    whole = {"num_channels": 1, "dtype": "uint8", "value_range": [0, 255], "is_patch_data": False}
    instances = {"channel_def": {"0": "background"}, "detects": record.outputs[1:], "format": "instances"}
    return {
        "marked": {**described, **whole, "format": "segmentation"},
        "instances": {**described, **whole, **instances},
    }


def _inferer(record: Record) -> Config:
    patch, spacing = list(record.recipe.data.patch), record.recipe.data.spacing_mm or (1.0,)
    if record.task == "classification":
        return {"_target_": "SimpleInferer"}
    if record.task == "detection":
        apart = max(3, round(APART_MM / min(spacing)))
        found = {"name": record.outputs[1], "min_score": 0.1, "apart": apart, "overlap": 0.25}
        return {"_target_": "centre_detector.CentreInferer", "roi_size": patch, **found}
    windows = {"sw_batch_size": 1, "overlap": 0.5, "mode": "gaussian"}
    return {"_target_": "SlidingWindowInferer", "roi_size": patch, **windows}


def _postprocessing(record: Record) -> list[Config]:
    pred = {"keys": "pred"}
    saved = {"output_dir": "@output_dir", "resample": False, "squeeze_end_dims": True}
    if record.task == "classification":
        questions = [list(answers) for answers in record.questions.values()]
        sizes = [len(answers) for answers in questions]
        shares = f"$lambda p: torch.cat([part.softmax(dim=0) for part in p.split({sizes})])"
        return [{"_target_": "Lambdad", **pred, "func": shares}]
    if record.task == "detection":
        flat = [{"_target_": "FlattenSubKeysd", **pred}]
        maps = ("marked", "instances")
        return [*flat, *({"_target_": "SaveImaged", "keys": key, "output_postfix": key, **saved} for key in maps)]
    inverted = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False, "to_tensor": True}
    return [
        {"_target_": "Activationsd", **pred, "softmax": True},
        {"_target_": "Invertd", **pred, **inverted},
        {"_target_": "AsDiscreted", **pred, "argmax": True},
        {"_target_": "SaveImaged", **pred, **saved},
    ]


def _came_about(record: Record) -> str:
    if not record.steps:
        return "not trained yet"
    return f"trained on {record.name}, {record.steps} steps, best at step {record.best_step}"


def _plain(version: str) -> str:
    """A version without the part that names a build: ``2.13.0+cpu`` is 2.13.0."""
    return version.split("+")[0]
