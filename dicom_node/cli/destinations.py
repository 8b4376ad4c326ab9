"""Destinations: who has what was made, and what each of them can take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from dicom_node.cli.command import Command, as_json_text, console, database, read_settings, with_settings
from dicom_node.cli.files import peer_of

if TYPE_CHECKING:
    from dicom_node.domain.profile import Profile


@click.command("who-has", cls=Command, example="dicom-node who-has 2819497684894126")
@with_settings
@click.argument("identifier")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def who_has(settings_file: Path, identifier: str, as_json: bool) -> None:
    """Say of every object that was made of a series who has it, and how that is known.

    IDENTIFIER is what `dicom-node explain` takes. An object is sent when the destination answered that it took it,
    committed when the destination vouches for it (storage commitment), and seen when a query found it there.
    """
    from dicom_node.db.holders import list_holders
    from dicom_node.db.story import find_series
    from dicom_node.errors import NotFoundError

    settings = read_settings(settings_file)
    with database(settings, to_read=True) as tx:
        series = find_series(tx, identifier.strip())
        found = list_holders(tx, series)
    if not found:
        what = "nothing was made of it" if series else "nothing is known of it"
        raise NotFoundError(f"{identifier}: {what}; `dicom-node explain` may say more")
    for one in found:
        one["here"] = (settings.spool.path / one["path"]).is_file()
    if as_json:
        click.echo(json.dumps(found, default=as_json_text, indent=1))
    else:
        console().print(_holders(found))


@click.command(cls=Command, example="dicom-node probe pacs\ndicom-node probe 10.0.0.7:104 --called PACS")
@with_settings
@click.argument("destination")
@click.option("--called", metavar="AE", default="ANY-SCP", show_default=True, help="Their AE title, for HOST:PORT.")
@click.option("--calling", metavar="AE", default="AINODE", show_default=True, help="Our AE title, for HOST:PORT.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1), default=10.0, show_default=True, metavar="SECONDS")
@click.option("--json", "as_json", is_flag=True, help="The profile as JSON.")
def probe(settings_file: Path, destination: str, called: str, calling: str, timeout_s: float, *, as_json: bool) -> None:
    """Find out what a destination can take and how it can prove it; nothing is stored there.

    A destination of the settings, whose profile is kept and used when results are sent; or HOST:PORT, to look only.
    """
    from dicom_node.db.profiles import write_profile
    from dicom_node.deliver.probe import probe as ask

    peer = peer_of(settings_file, destination, called, calling, timeout_s)
    profile = ask(peer)
    if ":" not in destination:
        with database(read_settings(settings_file)) as tx:
            write_profile(tx, peer.name, profile)
    if as_json:
        click.echo(json.dumps(asdict(profile), default=as_json_text, indent=1))
        return
    for line in _told(peer.name, profile):
        click.echo(line)


def _told(name: str, profile: Profile) -> Iterator[str]:
    """Say in plain words what came out."""
    yield f"{name} ({profile.where})"
    if profile.echo_ms:
        middle, slowest = median(profile.echo_ms), max(profile.echo_ms)
        yield f"answers         {middle:.1f} ms (median of {len(profile.echo_ms)}; slowest {slowest:.1f} ms)"
    else:
        yield "answers         it takes associations, but no C-ECHO"
    yield from _objects_told(profile)
    yield f"queries         {profile.query or 'are answered, at the level of instances'}"
    if profile.commitment != "-":
        yield f"commitment      {profile.commitment or f'is answered; {profile.report}'}"
    yield f'proof           the most that it can give: verify = "{profile.verify}"'


def _objects_told(profile: Profile) -> Iterator[str]:
    from pydicom.uid import UID

    from dicom_node.domain.choice import instead_of
    from dicom_node.domain.profile import OFFERS

    if profile.accepted is None:
        yield "objects         are not negotiated: it says of each one whether it takes it"
        return
    for offer in OFFERS:
        syntaxes = profile.accepted[offer.sop_class_uid]
        if syntaxes:
            yield f"takes           {offer.name}: {', '.join(UID(syntax).name for syntax in syntaxes)}"
    for offer in profile.leaves:
        yield f"does not take   {offer.name}; it gets instead: {instead_of(offer, profile)}"


def _holders(found: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    def at(time: datetime | None) -> str:
        return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else "-"

    table = Table(box=None, pad_edge=False)
    for name in ("object", "UID", "here", "destination", "sent", "committed", "seen", "remark"):
        table.add_column(name, overflow="fold", no_wrap=name in ("object", "sent", "committed", "seen"))
    for one in found:
        is_sent = one["state"] == "delivered"
        table.add_row(
            one["kind"].upper(),
            one["sop_instance_uid"],
            "yes" if one["here"] else "no",
            one["destination"] or "-",
            at(one["finished_at"]) if is_sent else one["state"] or "-",
            at(one["committed_at"]),
            at(one["seen_at"]),
            _remark(one),
        )
    return table


def _remark(one: dict[str, Any]) -> str:
    if one["state"] != "delivered":
        return one["last_error"] or ""
    if one["proof"] in (None, "proven"):
        return "" if one["proof"] else "no proof is asked for"
    return f"proof {one['proof']}" + (f": {one['proof_said']}" if one["proof_said"] else "")
