"""The whole road once, with a real chest CT: PACS -> node -> model -> SEG and SR -> PACS.

    make demo                 run it and clean up
    make demo KEEP=1          leave node and PACS running, and say how to look at them

Exit status 0 only when the PACS really holds every object that the node made.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from pydicom import dcmread
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
from pacs import AE_TITLE, PACS, Held, free_port, start_pacs
from picture import draw
from report import lines

from dicom_node.db.engine import open_engine, reading
from dicom_node.db.listing import JobFilter, list_jobs
from dicom_node.deliver.dimse import send_files
from dicom_node.settings import load_settings

DATA = Path(__file__).parent / "data" / "lidc_idri_0314"
SCANNER = "DEMOCT"
NODE = "AINODE"
START_S = 300.0
LONGEST_S = 900.0

SETTINGS = """\
[node]
ae_title = "{node}"

[database]
url = "sqlite:///node.db"

[receive]
address = "127.0.0.1"
port = {port}
processes = 2
peers = [{{ ae_title = "{scanner}", address = "127.0.0.1" }}]

[assemble]
quiet_s = 3

[destinations.pacs]
host = "127.0.0.1"
port = {pacs_port}
ae_title = "{pacs}"
"""

RULE = """\
model = "chest_ct"
destinations = ["pacs"]

[when]
Modality = "CT"
BodyPartExamined = { one_of = ["CHEST", "THORAX", "LUNG"] }
slices = { at_least = 20 }
slice_spacing_mm = { at_most = 5 }
"""

say = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave node and PACS running at the end")
    parser.add_argument("--builtin-pacs", action="store_true", help="do not use Orthanc even where it is installed")
    parser.add_argument("--folder", type=Path, default=Path("var/demo"), help="where everything of the demo is put")
    parser.add_argument("--series", type=Path, default=DATA, help="folder of a DICOM series to send instead")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # node and PACS must not outlive us
    folder = arguments.folder.resolve()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    pacs = start_pacs(folder / "pacs", builtin=arguments.builtin_pacs)
    say.print(f"PACS     {pacs.name}, AE {AE_TITLE} on port {pacs.port}")
    if pacs.dicomweb is None:
        say.print("         (with Orthanc installed the demo uses that: sudo sh deploy/peers.sh)")
    node = None
    try:
        node, port = start_node(folder, pacs)
        ok = run(folder, arguments.series, pacs, port)
        if arguments.keep:
            keep(folder, arguments.series, pacs, port)
        return 0 if ok else 1
    finally:
        if node is not None:
            stop(node)
        pacs.close()


def run(folder: Path, series: Path, pacs: PACS, port: int) -> bool:
    """Send the series, wait for the end of its story, and show what the PACS holds then."""
    files = sorted(series.glob("*.dcm"))
    with progress() as bars:
        task = bars.add_task("C-STORE to the node", total=len(files))
        sent = send_files(files, "127.0.0.1", port, NODE, SCANNER, lambda _: bars.advance(task))
        refused = [f for f in sent if f.status != 0]
    if refused:
        say.print(f"[red]{len(refused)} of {len(files)} instances were not stored: {refused[0].problem}")
        return False
    uid = str(dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)
    job = wait(folder, uid)
    if job is None or job["state"] != "completed":
        say.print("[red]no result within the time of the demo; this is why:")
        subprocess.run([*command(folder, "explain"), uid], check=False)
        return False
    held = list(pacs.results())
    return show(folder, files, job, held, pacs)


def start_node(folder: Path, pacs: PACS) -> tuple[subprocess.Popen[bytes], int]:
    """Write settings and a rule, start `dicom-node serve`, and wait until it listens."""
    port = free_port()
    home = folder / "node"
    (home / "rules").mkdir(parents=True)
    (home / "settings.toml").write_text(
        SETTINGS.format(node=NODE, port=port, scanner=SCANNER, pacs_port=pacs.port, pacs=AE_TITLE)
    )
    (home / "rules" / "chest_ct.toml").write_text(RULE)
    with (home / "node.log").open("wb") as log:
        process = subprocess.Popen(
            command(folder, "serve"), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    with progress() as bars:
        task = bars.add_task("starting the node", total=None)
        end = time.monotonic() + START_S
        while not (ready := b"ready: " in (home / "node.log").read_bytes()):
            if process.poll() is not None or time.monotonic() > end:
                break
            time.sleep(0.1)
        bars.update(task, total=1, completed=1)
    if not ready:
        stop(process)
        raise SystemExit(f"the node did not start:\n{(home / 'node.log').read_text()}")
    say.print(f"node     AE {NODE} on port {port}, settings in {shown(home / 'settings.toml')}")
    return process, port


def wait(folder: Path, series_uid: str) -> dict[str, Any] | None:
    """Follow the job of a series until it and its deliveries are done; None when the time is over."""
    engine = open_engine(load_settings(folder / "node" / "settings.toml").database.url, pool_size=1)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        bars = stack.enter_context(progress())
        task = bars.add_task("waiting until the series is quiet", total=None)
        end = time.monotonic() + LONGEST_S
        while time.monotonic() < end:
            with reading(engine) as tx:  # as `dicom-node jobs` asks, which takes a core from the model to start
                found = list_jobs(tx, JobFilter(series=series_uid))
            if found:
                job: dict[str, Any] = found[0]
                open_deliveries = [d for d in job["deliveries"] if d["state"] in ("waiting", "sending")]
                if job["state"] in ("failed", "canceled") or (job["state"] == "completed" and not open_deliveries):
                    bars.update(task, description=f"job {job['state']}", total=1, completed=1)
                    return job
                doing = "sending the results" if job["state"] == "completed" else f"job {job['state']}"
                bars.update(task, description=doing)
            time.sleep(0.5)
    return None


def show(folder: Path, files: list[Path], job: dict[str, Any], held: list[Held], pacs: PACS) -> bool:
    """Save what the PACS gave back, draw it, and print the table."""
    kinds = {result["sop_instance_uid"]: result["kind"] for result in job["results"]}
    received = {kinds.get(h.sop_instance_uid, f"unexpected {h.modality}"): h for h in held}
    out = folder / "results"
    out.mkdir()
    for kind, h in received.items():
        (out / f"{kind}.dcm").write_bytes(h.content)
    ok = len(held) == len(kinds) and received.keys() == set(kinds.values()) and {"seg", "sr"} <= received.keys()
    volumes = draw(received["seg"].content, files, out / "picture.png") if "seg" in received else {}
    if "sc" in received:
        Image.fromarray(dcmread(BytesIO(received["sc"].content)).pixel_array).save(out / "page.png")
    say.print(table(files, job, volumes, held, pacs))
    if "sr" in received:
        say.print(report(received["sr"].content))
    for path in sorted(out.iterdir()):
        say.print(f"{path.name:12} {shown(path)}")
    if ok:
        say.print(f"[green]The PACS holds all {len(held)} objects that the node made.")
    else:
        say.print("[red]The PACS does not hold exactly what the node made.")
    return ok


def report(content: bytes) -> Table:
    """What the structured report says, group by group."""
    rows = Table(title="What the report says", show_header=False, title_justify="left")
    for name, said in lines(content):
        rows.add_row(name, "\n".join(said))
    return rows


def table(files: list[Path], job: dict[str, Any], volumes: dict[str, float], held: list[Held], pacs: PACS) -> Table:
    """What happened, step by step."""
    ds = dcmread(files[0], stop_before_pixels=True)
    syntax = ds.file_meta.TransferSyntaxUID.name
    rows = Table(title="What happened", show_header=False, title_justify="left")
    rows.add_row("series", f"{ds.PatientID}, {ds.Modality}, {len(files)} slices, sent as {syntax}")
    rows.add_row("job", f"{job['model']} {job['model_version']}, {job['state']}, attempt {job['attempt']}")
    for step, seconds in job["steps_s"].items():
        rows.add_row(f"  {step}", f"{seconds:6.2f} s")
    for label, volume in volumes.items():
        rows.add_row(label, f"{volume:,.0f} ml")
    for delivery in job["deliveries"]:
        status = "" if delivery["last_status"] is None else f", status 0x{delivery['last_status']:04X}"
        rows.add_row(f"{delivery['kind'].upper()} to {delivery['destination']}", f"{delivery['state']}{status}")
    for h in held:
        description = dcmread(BytesIO(h.content), stop_before_pixels=True).get("SeriesDescription", "")
        rows.add_row("PACS holds", f"{h.modality}, {len(h.content) / 1e6:.2f} MB, {description}")
    rows.add_row("PACS", pacs.name)
    return rows


def keep(folder: Path, series: Path, pacs: PACS, port: int) -> None:
    """Wait for Ctrl-C while node and PACS go on; a viewer finds the images at the PACS, where a hospital has them."""
    if pacs.dicomweb:
        files = sorted(series.glob("*.dcm"))
        with progress() as bars:
            task = bars.add_task("C-STORE of the images to the PACS", total=len(files))
            send_files(files, "127.0.0.1", pacs.port, AE_TITLE, SCANNER, lambda _: bars.advance(task))
    say.print("\nNode and PACS go on until Ctrl-C. Meanwhile:")
    say.print(f"  {' '.join(command(folder, 'jobs'))}")
    say.print(f"  {' '.join(command(folder, 'explain'))} LIDC-IDRI-0314")
    say.print(f"  {' '.join(command(folder, 'user', 'add'))} ann --role admin")
    say.print(f"  {' '.join(command(folder, 'web'))}        (pages on http://127.0.0.1:8080)")
    say.print(f"  storescu -aet {SCANNER} -aec {NODE} +sd 127.0.0.1 {port} FOLDER")
    if pacs.dicomweb:
        say.print(f"  .venv/bin/python deploy/ohif/viewer.py --dicomweb {pacs.dicomweb}")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


def command(folder: Path, *words: str) -> list[str]:
    """A dicom-node command on the demo's settings."""
    return [sys.executable, "-m", "dicom_node", *words, "--settings", str(folder / "node" / "settings.toml")]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the node and everything it started."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def progress() -> Progress:
    """A bar for a terminal, plain lines elsewhere."""
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=say)


def shown(path: Path) -> str:
    """A path as short as it can be said."""
    return os.path.relpath(path)


if __name__ == "__main__":
    sys.exit(main())
