"""The card for people: ``docs/README.md`` of a bundle."""

from __future__ import annotations

import json
from dataclasses import asdict

from ai.export.card import training_sentence
from ai.train.run import Record


def readme(record: Record, name: str) -> str:
    """What was trained, on what, how, how long, and how well it does; nothing that the record does not hold."""
    figures = "\n".join(f"| {figure} | {value:.3f} |" for figure, value in record.figures.items())
    settings = json.dumps(asdict(record.recipe), indent=1)
    return f"""# {name}

{record.network["_target_"]} for {record.task}, trained with `python -m ai train {record.task}`.
**{training_sentence(record)}**

## What it was trained on

{f"{record.name}. {record.description}".strip()}

| | cases |
|---|---|
| to train on | {len(record.training_cases)} ({record.real} real, {record.synthetic} synthetic) |
| to validate on | {len(record.validation_cases)} |

Licence of the data, as its dataset.json says: {record.licence or "not stated"}.
{f"It began with the weights of {record.started_from}." if record.started_from else "It began with random weights."}

## How

{record.steps} steps, the best weights at step {record.best_step}; seed {record.seed}, fold {record.fold}.
{record.seconds / 60:.1f} minutes on {record.machine};
{", ".join(f"{package} {number}" for package, number in record.packages.items())}.

<details><summary>Settings</summary>

```json
{settings}
```

</details>

## How well it does

On the {len(record.validation_cases)} cases of the fold that was left out. These cases also chose which step is best,
so the figures flatter the model: judge it on cases that it has never met{_judging(record)}.

| figure | mean |
|---|---|
{figures}

## What it does wrong

To be filled in: look at its worst cases.

## Input and output

{", ".join(record.channels)} in; out: {", ".join(f"{n} {output}" for n, output in enumerate(record.outputs))}.
The bundle has the layout of the MONAI Model Zoo: `python -m monai.bundle run --config_file configs/inference.json` with
images in `data/`. Its data and this model are **not for clinical use**.
"""


def _judging(record: Record) -> str:
    own = record.task == "segmentation" and len(record.channels) == 1
    return " (`python -m ai evaluate segmentation --bundle BUNDLE --source CASES`)" if own else ""
