"""Bundles whose own evaluator does more than call an inferer: it is run on one image, and its answer taken."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from monai.bundle.config_parser import ConfigParser
from monai.data.utils import list_data_collate

from ai.configuration import target
from ai.contract import ModelInvalidOutput

_ORDINARY = ("SupervisedEvaluator", "EnsembleEvaluator", "Evaluator", "")
_NOT_OURS = ("val_handlers", "key_val_metric", "additional_metrics", "postprocessing")


class OwnEvaluator:
    """The evaluator of a bundle, without its data, handlers and metrics.

    Parameters
    ----------
    parser : monai.bundle.ConfigParser
        The bundle's configuration.
    """

    def __init__(self, parser: ConfigParser) -> None:
        for key in _NOT_OURS:
            parser["evaluator"].pop(key, None)
        parser["evaluator"]["val_data_loader"] = [None]  # one round, of what is put in its place
        parser["evaluator"]["amp"] = bool(parser["evaluator"].get("amp")) and "cuda" in str(parser["device"])
        self._evaluator = parser.get_parsed_content("evaluator")

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Run it on preprocessed data; give everything that it adds to them."""
        self._evaluator.data_loader = [list_data_collate([dict(data)])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a library that bundles use in their own ways
            self._evaluator.run()
        output = self._evaluator.state.output
        if isinstance(output, list) and len(output) == 1:
            output = output[0]
        if not isinstance(output, Mapping) or "pred" not in output:
            raise ModelInvalidOutput("The bundle's own evaluator gave no pred for one image.")
        return {str(getattr(key, "value", key)): value for key, value in output.items()}


def evaluates_itself(config: Mapping[str, Any]) -> bool:
    """Whether a bundle brings an evaluator of its own, which is not just asked for what it detects."""
    evaluator = config.get("evaluator")
    if not isinstance(evaluator, Mapping) or "no_collation" in str(config.get("dataloader")):
        return False
    return target(evaluator) not in _ORDINARY and str(evaluator.get("_target_")).startswith("scripts.")


def make_required(parser: ConfigParser) -> None:
    """Do what the bundle wants done before its evaluator is made (``_requires_``): it sets up what the inferer uses."""
    evaluator = parser.get("evaluator")
    needs = evaluator.get("_requires_") if isinstance(evaluator, dict) else None
    for need in [needs] if isinstance(needs, str) else needs or ():
        if isinstance(need, str) and need.startswith("@"):
            parser.get_parsed_content(need[1:])
