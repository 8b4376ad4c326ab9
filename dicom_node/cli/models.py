"""Models: look at a bundle, add it, try it, pin it, switch it on and off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dicom_node.cli.command import FAILED, Command, console, read_settings, with_settings
from dicom_node.cli.compare import compare, promote

if TYPE_CHECKING:
    from ai.understand import Understanding
    from dicom_node.models.installed import Installed

_AFTER = "The node reads it when it starts: restart it."


@click.group()
def models() -> None:
    """Look after the models: MONAI bundles, unmodified, and programs, each with a card.toml."""


@models.command("list", cls=Command, example="dicom-node models list")
@with_settings
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_(settings_file: Path, as_json: bool) -> None:
    """Show every model, whether it is on, and what is wrong with it."""
    from dicom_node.models.installed import list_models

    found = list_models(read_settings(settings_file))
    if as_json:
        click.echo(json.dumps([_as_json(model) for model in found], indent=1))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "version", "state", "digest", "folder"):
        table.add_column(heading, overflow="fold")
    for model in found:
        table.add_row(model.name, model.version, model.state, model.digest[:12], str(model.bundle))
    console().print(table)
    for model in found:
        for problem in model.problems:
            click.echo(f"{model.name}: {problem}", err=True)


@models.command(cls=Command, example="dicom-node models show chest_ct\ndicom-node models show path/to/bundle")
@with_settings
@click.argument("model")
def show(settings_file: Path, model: str) -> None:
    """Say what a bundle takes, what it gives, what the PACS would get, and what is missing.

    MODEL is the name of a model, or the folder of a bundle that was not added yet. No line of it is run.
    """
    bundle, installed = _bundle(settings_file, model)
    _tell(bundle, installed)


@models.command(cls=Command, example="dicom-node models check chest_ct\ndicom-node models check path/to/bundle --run")
@with_settings
@click.argument("model")
@click.option("--run", "run_it", is_flag=True, help="Run it as the node would, on a generated volume.")
@click.option("--device", metavar="NAME", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto.")
@click.option("-o", "--picture", type=click.Path(path_type=Path, dir_okay=False), help="Where --run draws its answer.")
def check(settings_file: Path, model: str, run_it: bool, device: str, picture: Path | None) -> None:
    """Say what is wrong with a model; the exit status is 1 when something is.

    With --run it is loaded and asked about a generated volume of its modality, shut in as in the node. The answer means
    nothing about a patient; that there is one, on the right grid and with the right names, is what is checked.
    """
    from dicom_node.card import CARD
    from dicom_node.catalog import check_card, usable_card

    bundle, installed = _bundle(settings_file, model)
    known = _tell(bundle, installed)
    wrong = [*known.obstacles, *(installed.problems if installed else ())]
    if installed is None and (bundle / CARD).is_file():
        on_card = check_card(bundle)
        wrong += on_card
        for problem in on_card:
            click.echo(f"dicom-node: {problem}", err=True)
    if run_it and not known.obstacles:
        from dicom_node.work.trial import try_out

        modality = next((each.modality for each in known.inputs if each.modality), "CT")
        click.echo(try_out(bundle, modality, card=usable_card(bundle), device=device, picture=picture))
        if picture is not None:
            click.echo(f"the picture is {picture}")
    if wrong:
        raise SystemExit(FAILED)


@models.command(
    cls=Command, example="dicom-node models add spleen_ct_segmentation.zip\ndicom-node models add my_bundle/"
)
@with_settings
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--name", metavar="NAME", help="What rules will call it; its folder's name without it.")
@click.option("--replace", is_flag=True, help="Put it in the place of the model of that name.")
def add(settings_file: Path, source: Path, name: str | None, replace: bool) -> None:
    """Copy a model, a folder or a zip file, into the node's first folder of models.

    It is checked and hashed, and gets a card.toml where it has none, with codes for the outputs whose names are known.
    What a person must decide is listed; the model stays off until that is done.
    """
    from dicom_node.card import CARD
    from dicom_node.models.installed import add_model

    added = add_model(read_settings(settings_file), source, name, replace=replace)
    model = added.model
    _describe(added.understanding)
    click.echo(f"added {model.name} {model.version} in {model.bundle}, digest {model.digest[:12]}")
    if not added.to_fill_in:
        click.echo(_AFTER)
        return
    click.echo(f"It is off. Fill in, in {model.bundle / CARD}:")
    for key in added.to_fill_in:
        click.echo(f"  {key}")
    click.echo(f"then: dicom-node models enable {model.name}")


@models.command(cls=Command, example="dicom-node models remove spleen_ct")
@with_settings
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(settings_file: Path, name: str, yes: bool) -> None:
    """Delete a model that was added and that no rule names."""
    from dicom_node.models.installed import find_model, remove_model

    settings = read_settings(settings_file)
    model = find_model(settings, name)
    if not yes:
        click.confirm(f"Delete {model.bundle}?", abort=True)
    remove_model(settings, name)
    click.echo(f"{name} is gone")


@models.command(cls=Command, example="dicom-node models enable spleen_ct")
@with_settings
@click.argument("name")
def enable(settings_file: Path, name: str) -> None:
    """Switch a model on and pin it, once its card is complete."""
    from dicom_node.models.installed import enable_model

    model = enable_model(read_settings(settings_file), name)
    click.echo(f"{name} is on, pinned to {model.digest[:12]}. {_AFTER}")


@models.command(cls=Command, example="dicom-node models disable spleen_ct")
@with_settings
@click.argument("name")
def disable(settings_file: Path, name: str) -> None:
    """Switch a model off that no rule names; it stays where it is."""
    from dicom_node.models.installed import disable_model

    disable_model(read_settings(settings_file), name)
    click.echo(f"{name} is off. {_AFTER}")


@models.command(cls=Command, example="dicom-node models pin spleen_ct")
@with_settings
@click.argument("name")
def pin(settings_file: Path, name: str) -> None:
    """Say that a model was reviewed as it is now on disk: with other bytes the node does not start."""
    from dicom_node.models.installed import pin_model

    model = pin_model(read_settings(settings_file), name)
    click.echo(f"{name} is pinned to {model.digest}")


models.add_command(compare)
models.add_command(promote)


def _bundle(settings_file: Path, model: str) -> tuple[Path, Installed | None]:
    """Find the bundle of a model, or the folder of that name."""
    folder = Path(model)
    if (folder / "configs").is_dir() or (folder / "card.toml").is_file():
        return folder, None
    from dicom_node.models.installed import find_model

    found = find_model(read_settings(settings_file), model)
    return found.bundle, found


def _tell(bundle: Path, installed: Installed | None) -> Understanding:
    from dicom_node.models.installed import look_at

    known = look_at(bundle)
    _describe(known)
    if installed is not None:
        click.echo(f"state      {installed.state}, digest {installed.digest}")
        for problem in installed.problems:
            click.echo(f"dicom-node: {problem}", err=True)
    for obstacle in known.obstacles:
        click.echo(f"dicom-node: this node cannot run it: {obstacle}", err=True)
    return known


def _describe(known: Understanding) -> None:
    click.echo(click.style(f"{known.name} {known.version}", bold=True) + (f": {known.task}" if known.task else ""))
    lines = [("takes", str(each)) for each in known.inputs] + [("gives", str(each)) for each in known.outputs]
    lines += [("the PACS", each) for each in known.results]
    lines += [("left out", each) for each in known.left_out]
    if known.command:
        lines.append(("runs", known.command))
    else:
        files = known.configuration or "no inference configuration", known.weights or "no weights"
        lines.append(("files", ", ".join(files)))
    if known.packages:
        lines.append(("packages", ", ".join(f"{name} {version}" for name, version in known.packages.items())))
    if known.missing:
        lines.append(("not here", f"{', '.join(known.missing)}: perhaps only its training needs them"))
    for what, said in lines:
        click.echo(f"{what:10} {said}")


def _as_json(model: Installed) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "state": model.state,
        "enabled": model.enabled,
        "pinned": model.pinned,
        "digest": model.digest,
        "folder": str(model.bundle),
        "problems": list(model.problems),
    }
