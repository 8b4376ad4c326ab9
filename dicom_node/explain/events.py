"""Audit events in sentences; several reasons stand one below the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Row

from dicom_node.domain.audit import Event
from dicom_node.explain.words import bare, clock_time, count


def event_lines(rows: Iterable[Row[Any]]) -> Iterator[tuple[Any, str]]:
    """Say each event; instances that were refused for one reason, one after the other, share a line.

    Yields
    ------
    (datetime, str)
        When it was (the first, of several), and what.
    """
    for _, same in groupby(rows, key=_group):
        first, *more = same
        text = sentence(first)
        yield first.at, f"{text}; and {count(len(more), 'more instance')} likewise" if more else text


def remedy(row: Row[Any]) -> str:
    """Say what to do about a refusal at the door."""
    if row.event == Event.TLS_FAILED:
        return "compare the peer's certificate, and who vouches for it, with receive.tls in the settings"
    if row.event == Event.ASSOCIATION_REJECTED:
        return "compare the peer's AE titles and address with receive.peers and receive.called_ae in the settings"
    if row.event == Event.SOP_CLASS_REFUSED:
        return "name the class in receive.sop_classes, or in a rule as SOPClassUID, and restart the node"
    if str(row.detail.get("status", "")).startswith("0xA7"):
        return "make space on the spool's disk, see that the database answers, and have the peer send again"
    return "the sender has to correct the instance"


def _group(row: Row[Any]) -> object:
    if row.event == Event.INSTANCE_REFUSED:
        return row.event, row.association_id, row.detail.get("status"), row.detail.get("reason")
    if row.event == Event.INSTANCE_DUPLICATE_DIFFERS:
        return row.event, row.association_id
    return row.id


def sentence(row: Row[Any]) -> str:
    """Say one event."""
    who = "" if row.actor == "node" else f" by {row.actor}"
    say = _SENTENCES.get(row.event)
    return (say(row, row.detail) if say else f"{row.event}{_details(row.detail)}") + who


def _complete(row: Row[Any], detail: dict[str, Any]) -> str:
    text = f"complete, revision {detail['revision']}: {detail['closed']}"
    if detail.get("source"):
        text += f" (source {detail['source']})"
    text += f"; {count(detail['slices'], 'single image' if detail.get('single') else 'slice')}"
    if volumes := detail.get("volumes"):
        text += f" in {len(volumes)} volumes: {'; '.join(volumes[:6])}{'; ...' if len(volumes) > 6 else ''}"
    if detail.get("slice_spacing_mm"):
        text += f", {detail['slice_spacing_mm']:g} mm apart"
    if detail.get("frame_of_reference"):
        text += f"; frame of reference: {detail['frame_of_reference']}"
    return "\n".join([text, *(f"set aside: {reason}" for reason in detail.get("set_aside", ()))])


def _routed(row: Row[Any], detail: dict[str, Any]) -> str:
    head = "rules were asked" if row.event == Event.SERIES_ROUTED else "no rule matched"
    return "\n".join([head, *detail.get("rules", ())])


def _came_again(row: Row[Any], detail: dict[str, Any]) -> str:
    by = f"came again, called {' and '.join(detail['called'])} by {' and '.join(detail['from'])}"
    if "jobs" not in detail:  # by the same title as before
        return f"{by}: what came was here already, byte for byte, and nothing is done twice"
    head = f"{by}: what is here was kept, and the rules were asked again"
    added = count(detail["jobs"], "new job") if detail["jobs"] else "no new job"
    return "\n".join([f"{head}; {added}", *detail.get("rules", ())])


def _scheduled(row: Row[Any], detail: dict[str, Any]) -> str:
    text = f"job {row.job_id[:8]} scheduled: {detail['model']} {detail['version']}"
    note = f"; incomplete: {detail['note']}" if detail.get("note") else ""
    if volume := detail.get("volume"):
        note += f"; of several volumes {', '.join(f'{keyword} {value}' for keyword, value in volume.items())}"
    if "supersedes" in detail:
        return f"{text}, run {detail['run']}, after job {detail['supersedes'][:8]}{note}"
    if "like" in detail:
        return f"{text}, beside job {detail['like'][:8]}{note}"
    where = ", ".join(detail.get("destinations", ())) or "no destination"
    return f"{text}, rule {detail['rule']}, priority {detail['priority'].lower()}, results to {where}{note}"


def _superseded(row: Row[Any], detail: dict[str, Any]) -> str:
    by = f" by job {detail['by'][:8]}" if detail.get("by") else ""
    if "revision" not in detail:
        return f"job {row.job_id[:8]} superseded{by}: other series of the study took the place of its own"
    return f"job {row.job_id[:8]} superseded{by}: revision {detail['revision']} of the series took its place"


def _study_waits(row: Row[Any], detail: dict[str, Any]) -> str:
    missing = f"{' and '.join(detail['missing'])} missing" if detail["missing"] else "more of the study on its way"
    until = clock_time(datetime.fromisoformat(detail["until"]))
    return f"rule {detail['rule']}: it fits {' and '.join(detail['fits'])}; {missing}, waited for until {until} at most"


def _rejected(row: Row[Any], detail: dict[str, Any]) -> str:
    peer = f"{detail.get('from')} ({detail.get('address')})"
    return f"association from {peer} to {detail.get('to')} rejected: {detail.get('reason')}"


def _unnamed(row: Row[Any], detail: dict[str, Any]) -> str:
    classes = ", ".join(detail.get("sop_classes", ()))
    return (
        f"{detail.get('from')} ({detail.get('address')}) may not send {classes}: "
        "no storage class of the standard, named by no rule and not in receive.sop_classes"
    )


def _refused(row: Row[Any], detail: dict[str, Any]) -> str:
    text = f"instance {detail.get('instance')} from {detail.get('from')} refused"
    return f"{text} with {detail.get('status')}: {detail.get('reason')}"


def _differs(row: Row[Any], detail: dict[str, Any]) -> str:
    return f"instance {detail.get('instance')} came with other bytes, refused with 0x0111; the first are kept"


def _reopened(row: Row[Any], detail: dict[str, Any]) -> str:
    return (
        f"reopened: {count(detail['late_instances'], 'instance')} came after revision {detail['revision']} was closed"
    )


def _proven(row: Row[Any], detail: dict[str, Any]) -> str:
    return f"{_object(detail)} proven by {detail['destination']}: {detail['how']}"


def _lost(row: Row[Any], detail: dict[str, Any]) -> str:
    return f"{_object(detail)} is missing at {detail['destination']}: {detail['reason']}; it is sent again"


def _unproven(row: Row[Any], detail: dict[str, Any]) -> str:
    return f"{_object(detail)} not proven by {detail['destination']} ({detail['state']}): {detail['reason']}"


def _commitment_asked(row: Row[Any], detail: dict[str, Any]) -> str:
    return f"{detail['destination']} was asked to commit itself to {_object(detail)}"


def _replaced(row: Row[Any], detail: dict[str, Any]) -> str:
    instead = f"{detail['instead'].upper()} goes instead"
    if "reason" in detail:  # it was never made
        return f"no {_object(detail)} for {detail['destination']}: {detail['reason']}; {instead}"
    why = f": {detail['error']}" if "error" in detail else ""
    return f"{detail['destination']} does not take {_object(detail)}{why}; {instead}"


def _chosen(row: Row[Any], detail: dict[str, Any]) -> str:
    """Say what a destination gets and why; for what it does not take, what goes instead."""
    gets = ", ".join(kind.upper() for kind in detail["kinds"]) or "nothing of what was made"
    text = f"{detail['destination']} gets {gets}, {detail['why']}"
    lines = [
        f"it does not take {kind.upper()}: {' and '.join(each.upper() for each in found) or 'nothing was made'} instead"
        for kind, found in detail["instead"].items()
    ]
    return "\n".join([text, *lines])


def _outdated(row: Row[Any], detail: dict[str, Any]) -> str:
    what = count(detail["objects"], "outdated object")
    if "reason" in detail:
        return f"{detail['destination']} is not told to reject {what}: {detail['reason']}"
    return f"{detail['destination']} is told to reject {what}"


def _object(detail: dict[str, Any]) -> str:
    return str(detail["kind"]).upper()


def _deleted(row: Row[Any], detail: dict[str, Any]) -> str:
    return f"{count(detail['instances'], 'instance')} deleted, {detail['bytes'] / 1e6:.1f} MB: {detail['reason']}"


_SENTENCES: dict[str, Callable[[Row[Any], dict[str, Any]], str]] = {
    Event.SERIES_COMPLETE: _complete,
    Event.SERIES_WAITS: lambda row, detail: f"waits for what is missing: {bare(detail['reason'])}",
    Event.SERIES_REFUSED: lambda row, detail: f"refused: {detail['reason']}",
    Event.SERIES_ROUTED: _routed,
    Event.SERIES_CAME_AGAIN: _came_again,
    Event.SERIES_UNMATCHED: _routed,
    Event.STUDY_WAITS: _study_waits,
    Event.STUDY_LACKS: lambda row, detail: f"no longer waited: {bare(detail['reason'])}",
    Event.JOB_SCHEDULED: _scheduled,
    Event.JOB_SUPERSEDED: _superseded,
    Event.JOB_FAILED: lambda row, detail: f"job {row.job_id[:8]} failed: {detail['error']}",
    Event.REPORT_MADE: lambda row, detail: f"report of failed job {row.job_id[:8]} made: it says NOT ANALYSED, and why",
    Event.REPORT_FAILED: lambda row, detail: f"no report of failed job {row.job_id[:8]}: {detail['reason']}",
    Event.JOB_CANCELED: lambda row, detail: f"job {row.job_id[:8]} canceled",
    Event.DELIVERY_REPLACED: _replaced,
    Event.OBJECTS_CHOSEN: _chosen,
    Event.OUTDATED_REJECTED: _outdated,
    Event.OUTDATED_LEFT: _outdated,
    Event.COMMITMENT_ASKED: _commitment_asked,
    Event.DELIVERY_PROVEN: _proven,
    Event.DELIVERY_LOST: _lost,
    Event.DELIVERY_UNPROVEN: _unproven,
    Event.ASSOCIATION_REJECTED: _rejected,
    Event.SOP_CLASS_REFUSED: _unnamed,
    Event.INSTANCE_REFUSED: _refused,
    Event.INSTANCE_DUPLICATE_DIFFERS: _differs,
    Event.SERIES_REOPENED: _reopened,
    Event.IMAGES_DELETED: _deleted,
    Event.RESULTS_DELETED: lambda row, detail: f"results of job {row.job_id[:8]} deleted: {detail['reason']}",
}


def _details(detail: dict[str, Any]) -> str:
    known = [f"{key.replace('_', ' ')} {value}" for key, value in detail.items() if value not in (None, "", [], {})]
    return ": " + ", ".join(known) if known else ""
