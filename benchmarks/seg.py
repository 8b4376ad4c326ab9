"""Times segmentations of many organs: written in each encoding by the node and by plain highdicom, and proved.

    python benchmarks/seg.py                                117 segments on 600 slices of 512 x 512
    python benchmarks/seg.py --segments 10 --slices 300
    python benchmarks/seg.py --only labelmap,highdicom-labelmap

The label map is synthetic: ellipsoids of the sizes of organs, none of which overlap, as TotalSegmentator marks them.
Each row is measured in a process of its own, from a label map in memory to the bytes of a file; ``prove`` reads those
bytes back and compares every voxel (CPU seconds). Peak memory is that of the whole process, label map (157 MB)
included; the CT's own voxels (630 MB) are not held.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time
from uuid import UUID

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless, generate_uid

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ai.contract import LabelMap, Prediction
from dicom_node.domain.finding import Code, Findings, Segment
from dicom_node.domain.job import Job, JobInstance
from dicom_node.domain.model import Accepts, ModelCard
from dicom_node.domain.uids import result_uid
from dicom_node.results import Equipment
from dicom_node.results.analysis import Analysis
from dicom_node.results.header import Origin, file_bytes
from dicom_node.results.proof import prove_labelmap, prove_seg
from dicom_node.results.seg import build_labelmap, build_seg
from dicom_node.volume import Volume

ORGAN, LIVER = Code("91723000", "SCT", "Anatomical Structure"), Code("10200004", "SCT", "Liver")
Row = tuple[float, float, float, int, int, float]


def main() -> None:
    """Print one row for each way of writing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=117)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--only", default=",".join(WAYS))
    chosen = parser.parse_args()
    print(f"{chosen.segments} segments on {chosen.slices} x {chosen.size} x {chosen.size}, highdicom {hd.__version__}")
    print("| written by | frames | write s | of it CPU s | prove s | MB | peak GiB |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "labels.npy"
        np.save(file, organs(chosen.segments, (chosen.slices, chosen.size, chosen.size)))
        for name in chosen.only.split(","):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                write_s, cpu_s, prove_s, frames, size, peak = pool.apply(measure, (name, str(file), chosen.segments))
            proved = f"{prove_s:.1f}" if prove_s else "-"
            print(
                f"| {name} | {frames} | {write_s:.1f} | {cpu_s:.1f} | {proved} | {size / 1e6:.1f} | {peak:.2f} |",
                flush=True,
            )


def measure(name: str, file: str, segments: int) -> Row:
    """Write in one way and read back: seconds, CPU seconds, seconds, frames, bytes, GiB."""
    labels = np.load(file)
    analysis = analysis_of(labels, segments)
    write, prove = WAYS[name]
    started, cpu = perf_counter(), process_time()
    data, frames = write(analysis, labels)
    write_s, cpu_s = perf_counter() - started, process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cpu = process_time()
    if prove is not None:
        prove(data, analysis)
    return write_s, cpu_s, process_time() - cpu, frames, len(data), peak


def organs(count: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Draw ellipsoids one into the other's gaps: few large, many small, about 90 slices each of 600."""
    random = np.random.default_rng(1)
    labels = np.zeros(shape, np.uint8)
    scale = np.array(shape) / (600, 512, 512)
    for number in range(count, 0, -1):
        radii = np.array([random.uniform(30, 65), *random.uniform(14, 60, 2)]) * (1.6 if number <= 8 else 1.0) * scale
        center = np.array([random.uniform(0.1, 0.9), *random.uniform(0.22, 0.78, 2)]) * shape
        low = np.maximum(np.floor(center - radii), 0).astype(int)
        high = np.minimum(np.ceil(center + radii) + 1, shape).astype(int)
        grid = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, center, radii, strict=True)) <= 1
        box = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        box[inside & (box == 0)] = number
    return labels


def analysis_of(labels: NDArray[np.uint8], count: int) -> Analysis:
    """Give what the builders get, of a series that exists in its headers alone."""
    headers = ct_headers(labels.shape)
    prediction = Prediction((LabelMap(labels, {n: f"organ {n}" for n in range(1, count + 1)}),), {}, "cpu")
    instances = tuple(JobInstance(h.SOPInstanceUID, h.SOPClassUID, ExplicitVRLittleEndian, "", "", {}) for h in headers)
    card = ModelCard(
        "organs", "1", "Organs", "dicom-node", "", "Synthetic.", Path(), "ab" * 32, "cd" * 32, 60, Accepts(("CT",)), ()
    )
    study, series = headers[0].StudyInstanceUID, headers[0].SeriesInstanceUID
    job = Job(str(UUID(int=1)), "", study, series, 1, "organs", "1", "", (), 10, 1, 1, datetime.now(UTC), instances)
    voxels = np.zeros(count + 1, np.int64)
    for plane in labels:
        voxels += np.bincount(plane.ravel(), minlength=count + 1)
    segments = [segment(n, int(voxels[n]), job.id) for n in range(1, count + 1) if voxels[n]]
    volume = Volume(np.zeros((1, 1, 1), np.float32), np.diag([0.8, 0.8, 1.0, 1.0])[:, [2, 1, 0, 3]], tuple(headers))
    origin = Origin.of(job, card, volume, Equipment("dicom-node", "1", "1"))
    return Analysis(origin, volume, Findings(tuple(segments)), prediction)


def segment(number: int, voxels: int, job_id: str) -> Segment:
    """Give one finding; all are livers, as far as codes go."""
    name, uid = f"organ {number}", result_uid(job_id, f"track/{number}")
    return Segment(name, number, name, ORGAN, LIVER, None, None, (90, 140, 220), name, uid, voxels, 0.0, ())


def ct_headers(shape: tuple[int, ...]) -> list[Dataset]:
    """Give the headers of an axial CT of this shape."""
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    return [ct_header(k, shape, study, series, frame) for k in range(shape[0])]


def ct_header(k: int, shape: tuple[int, ...], study: str, series: str, frame: str) -> Dataset:
    """Give the header of one slice."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, generate_uid(), "CT"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "ORGANS", "1", "", "O"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20250301", "101500", "", "1"
    ds.ReferringPhysicianName, ds.SeriesNumber, ds.InstanceNumber, ds.BodyPartExamined = "", 2, k + 1, "CHEST"
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions, ds.DeviceSerialNumber = "Synthetic", "P", "1", "1"
    ds.Rows, ds.Columns, ds.PixelSpacing, ds.SliceThickness = shape[1], shape[2], [0.8, 0.8], 1
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, k], [1, 0, 0, 0, 1, 0]
    return ds


Written = tuple[bytes, int]
Write = Callable[[Analysis, NDArray[np.uint8]], Written]


def _binary(analysis: Analysis, labels: NDArray[np.uint8]) -> Written:
    made = build_seg(analysis)
    assert made is not None
    return file_bytes(made), int(made.head.NumberOfFrames)


def _labelmap(analysis: Analysis, labels: NDArray[np.uint8]) -> Written:
    made = build_labelmap(analysis)
    return file_bytes(made), int(made.head.NumberOfFrames)


def _highdicom(kind: str, syntax: str) -> Write:
    def write(analysis: Analysis, labels: NDArray[np.uint8]) -> Written:
        algorithm = hd.AlgorithmIdentificationSequence("organs", codes.cid7162.ArtificialIntelligence, "1")
        described = [
            hd.seg.SegmentDescription(
                segment_number=each.number,
                segment_label=each.label,
                segmented_property_category=codes.SCT.AnatomicalStructure,
                segmented_property_type=codes.SCT.Liver,
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
            )
            for each in analysis.findings.present
        ]
        seg = hd.seg.Segmentation(
            source_images=list(analysis.volume.datasets),
            pixel_array=labels,
            segmentation_type=kind,
            segment_descriptions=described,
            series_instance_uid=generate_uid(),
            series_number=1,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="m",
            manufacturer_model_name="m",
            software_versions="1",
            device_serial_number="1",
            transfer_syntax_uid=syntax,
        )
        return file_bytes(seg), int(seg.NumberOfFrames)

    return write


WAYS: dict[str, tuple[Write, Callable[[bytes, Analysis], None] | None]] = {
    "labelmap": (_labelmap, prove_labelmap),
    "binary": (_binary, prove_seg),
    "highdicom-labelmap": (_highdicom("LABELMAP", RLELossless), None),
    "highdicom-labelmap-jpegls": (_highdicom("LABELMAP", JPEGLSLossless), None),
    "highdicom-binary": (_highdicom("BINARY", ExplicitVRLittleEndian), None),
}

if __name__ == "__main__":
    main()
