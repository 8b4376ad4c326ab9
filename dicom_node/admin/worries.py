"""What somebody should look at, a sentence each with what to do: the first page and the System page say the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import Connection

from dicom_node.admin.desk import Desk
from dicom_node.db import overview
from dicom_node.db.engine import utc_now
from dicom_node.db.pauses import echoes, paused
from dicom_node.explain import bare, clock_time, count

_MIB = 1024 * 1024
_WAITS_LONG = timedelta(minutes=30)
_NEEDED = (  # the roles that say that they live
    ("work", "no worker is alive, nothing is being analysed"),
    ("deliver", "no deliverer is alive, nothing is being sent"),
)


def worries(tx: Connection, desk: Desk, counts: overview.Counts) -> list[str]:
    """Say them, the worst first; commands stand in backticks."""
    now = utc_now()
    alive = {row.role for row in overview.processes(tx, now) if row.state == "alive"}
    found = [f"{what}: do `dicom-node serve` or `dicom-node {role}`" for role, what in _NEEDED if role not in alive]
    found += _disk(desk)
    held = paused(tx)
    for name, row in held.items():
        queue, why = name.removeprefix("deliver/"), f" ({row.reason})" if row.reason else ""
        found.append(f"the queue {queue} is paused since {clock_time(row.at)} by {row.actor}{why}")
    if counts.oldest_scheduled and now - counts.oldest_scheduled > _WAITS_LONG and "jobs" not in held:
        found.append("a job has been waiting for more than 30 minutes")
    for name, late in overview.late(tx).items():
        what = f"{count(late.objects, 'object')} for {name} {'is' if late.objects == 1 else 'are'} not delivered yet"
        found.append(f"{what}: {bare(late.last_error)}; next try at {clock_time(late.next_attempt_at)}")
    if counts.undeliverable:
        failed = f"{counts.undeliverable} deliveries have failed for good"
        found.append(f"{failed}: the page Destinations says which and why; send them again, or cancel their jobs")
    found += [f"the rules were changed and are not taken: {problem}" for problem in desk.rulebook.problems]
    answers = echoes(tx)
    silent = [name for name in desk.catalog.destinations if name in answers and answers[name].error]
    found += [f"the destination {name} did not answer when it was last asked" for name in silent]
    return [f"{each[0].upper()}{each[1:]}." for each in found]


def _disk(desk: Desk) -> Iterator[str]:
    free_mib = shutil.disk_usage(desk.spool.root).free // _MIB
    keep = desk.settings.retain.free_mib
    if desk.spool.is_full():
        yield (
            f"the spool's disk has {free_mib} MiB left, down to spool.reserve_mib = {desk.spool.reserve_mib}: "
            "images are refused with 0xA700; make room on it, and have the peers send again"
        )
    elif free_mib < keep:
        yield (
            f"the spool's disk has {free_mib} MiB left, below retain.free_mib = {keep}: "
            "the oldest images and results go before their time; make room on it"
        )
