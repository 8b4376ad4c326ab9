"""The whole size of it: the demo's real chest CT, read from the spool and written as SEG and SR."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import dcmread

from dicom_node.digest import digest_of
from dicom_node.domain.job import JobInstance
from dicom_node.spool import Spool
from dicom_node.volume import load_volume
from tests.peers.validators import problems
from tests.unit.results.case import Case, build, job_on


def test_the_chest_ct_becomes_valid_objects_that_cover_what_was_marked(
    chest_ct: list[Path], tmp_path: Path, spool: Spool
) -> None:
    stored = [_spooled(path, spool) for path in chest_ct]
    instances = tuple(sorted(stored, key=lambda each: float(each.header["z"])))
    volume = load_volume(spool, instances)
    case = Case(chest_ct, volume, job_on(instances, volume.datasets[0]))
    air = (volume.array < -500) & (volume.array > -990)
    middle = air.shape[2] // 2
    masks = {"left lung": air.copy(), "right lung": air}
    masks["left lung"][:, :, :middle] = False
    masks["right lung"][:, :, middle:] = False

    built = build(case, masks, spool)

    read_back = hd.seg.Segmentation.from_dataset(built.seg).get_volume(combine_segments=True, relabel=True)
    points = np.rint(read_back.map_reference_to_indices(volume.affine[:3, 3][None])).astype(int)[0]
    labels = read_back.array[::-1] if points[0] else read_back.array
    assert labels.shape == air.shape
    assert np.array_equal(labels == 1, masks["left lung"])
    assert np.array_equal(labels == 2, masks["right lung"])
    some = chest_ct[::25]  # dcentvfy compares each with each
    assert problems(built.files["seg"], built.files["sr"], sources=some) == []


def _spooled(path: Path, spool: Spool) -> JobInstance:
    content = path.read_bytes()
    ds = dcmread(BytesIO(content), stop_before_pixels=True)
    data_set = content[144 + int.from_bytes(content[140:144], "little") :]
    relative, _, _ = spool.write("instances/aa", path.name, content)
    syntax, z = ds.file_meta.TransferSyntaxUID, str(ds.ImagePositionPatient[2])
    return JobInstance(ds.SOPInstanceUID, ds.SOPClassUID, syntax, relative, digest_of(data_set), {"z": z})
