"""Joint against single-task training, and MONAI's RetinaNet beside both: same scans, same patches, as many steps.

Every variant is judged on the same scans by the maps that it has learnt: nodules found (FROC over the peaks of the
centre map, or over boxes), outlines (Dice around each true nodule), classes (over the true outline).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ai.data.nodule import Nodule as Reference
from ai.evaluate.froc import Candidate, Performance, at_least, performance
from ai.evaluate.froc import Scan as Judged
from ai.train.chest import ATTENUATION, DETECT, MARGIN, SEGMENT, Plan
from ai.train.chest_patches import cut_patches
from ai.train.chest_scans import KINDS, Scan

_LEAST_SCORE = 0.02
_AROUND = 5
_MOST = 100


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one variant did; what it has not learnt is None.

    Attributes
    ----------
    judged : tuple of ai.evaluate.froc.Scan
        Candidates and nodules of each scan: what the FROC rests on.
    found, found_6mm : Performance
        All nodules, and those of 6 mm and more.
    dice : float
        Mean over nodules.
    attenuation, margin : float
        Share of nodules given the right class.
    seconds_per_scan : float
        Of the network alone.
    """

    judged: tuple[Judged, ...]
    found: Performance | None
    found_6mm: Performance | None
    dice: float | None
    attenuation: float | None
    margin: float | None
    seconds_per_scan: float

    @staticmethod
    def head() -> tuple[str, str]:
        """The first two lines of a Markdown table of `row`."""
        return HEAD

    def row(self, name: str) -> str:
        """One row of the Markdown table that `head` begins."""

        def shown(value: float | None) -> str:
            return "" if value is None else f"{value:.3f}"

        froc = ["", "", ""]
        if self.found is not None and self.found_6mm is not None:
            froc = [shown(self.found.cpm.value), shown(self.found_6mm.cpm.value), shown(self.found_6mm.at[1.0].value)]
        cells = [name, *froc, shown(self.dice), shown(self.attenuation), shown(self.margin)]
        return f"| {' | '.join(cells)} | {self.seconds_per_scan:.2f} |"


HEAD = (
    "| variant | CPM | CPM >= 6 mm | sensitivity at 1 FP, >= 6 mm | Dice | attenuation right | margin right | s/scan |",
    "|---|---|---|---|---|---|---|---|",
)


def judge(
    network: torch.nn.Module, inferer: Any, scans: Iterable[Scan], tasks: Sequence[str], spacing_mm: float
) -> Verdict:
    """Judge a network on scans that it has not seen.

    Parameters
    ----------
    network : torch.nn.Module
        The bundle's, with the nodule network trained.
    inferer : object
        The bundle's: its `cropped`, `maps`.
    scans : iterable of Scan
        With their nodules; taken one at a time.
    tasks : sequence of str
        What it has learnt.
    spacing_mm : float
        Voxel size.
    """
    from scripts.nodules import peaks  # type: ignore[import-not-found]  # the bundle's own package

    judged: list[Judged] = []
    dice: list[float] = []
    kinds: list[bool] = []
    margins: list[bool] = []
    seconds = 0.0
    for number, scan in enumerate(scans):
        with torch.inference_mode():
            image, lungs = scan.hu.float()[None, None], scan.lungs[None, None]
            crop, region, inside = inferer.cropped(image, lungs)
            started = time.perf_counter()
            maps = inferer.maps(crop, region, network)
            heat = torch.sigmoid(maps[:, :1]) * region
            found = peaks(heat, spacing_mm, _LEAST_SCORE)[:_MOST]
            seconds += time.perf_counter() - started
            start = np.array([part.start for part in inside[2:]])
            judged.append(
                _judged(str(number), scan, [(score, np.array(at) + start) for score, at in found], spacing_mm)
            )
            instances = scan.instances[inside[2:]]
            for n in range(1, len(scan.diameters) + 1):
                mask = instances == n
                if not mask.any():
                    continue
                logits = maps[0][:, mask].float().mean(dim=1)
                kinds.append(int(logits[2:5].argmax()) == int(scan.attenuation[n]))
                margins.append(bool(logits[5] > 0) == bool(scan.spiculated[n] > 0.5))
                dice.append(_dice(maps[0, 1], instances, n))
    learnt = set(tasks)
    return Verdict(
        judged=tuple(judged),
        found=performance(judged) if DETECT in learnt else None,
        found_6mm=performance(judged, at_least(6.0)) if DETECT in learnt else None,
        dice=float(np.mean(dice)) if SEGMENT in learnt else None,
        attenuation=float(np.mean(kinds)) if ATTENUATION in learnt else None,
        margin=float(np.mean(margins)) if MARGIN in learnt else None,
        seconds_per_scan=seconds / len(judged),
    )


def train_retinanet(scans: Sequence[Scan], plan: Plan, say: Callable[[str], None]) -> Any:
    """Train MONAI's 3-D RetinaNet (Lin et al. 2017) on the same patches: focal loss for classes, GIoU for boxes."""
    from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
    from monai.apps.detection.networks.retinanet_network import RetinaNet, resnet_fpn_feature_extractor
    from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
    from monai.losses.focal_loss import FocalLoss
    from monai.losses.giou_loss import BoxGIoULoss
    from monai.networks.nets.resnet import resnet18

    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    device = scans[0].hu.device
    anchors = AnchorGeneratorWithAnchorShape(
        feature_map_scales=[1, 2, 4], base_anchor_shapes=[[4.0] * 3, [6.0] * 3, [8.0] * 3]
    )
    backbone = resnet18(
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_stride=2,
        conv1_t_size=7,
        feed_forward=False,
        shortcut_type="B",
        bias_downsample=False,
    )
    features = resnet_fpn_feature_extractor(backbone, 3, False, [1, 2], None)
    network = RetinaNet(
        spatial_dims=3,
        num_classes=1,
        num_anchors=anchors.num_anchors_per_location()[0],  # type: ignore[no-untyped-call]
        feature_extractor=features,
        size_divisible=[16, 16, 16],
    )
    detector = RetinaNetDetector(network=network, anchor_generator=anchors).to(device)
    detector.set_atss_matcher(num_candidates=4, center_in_gt=False)
    detector.set_hard_negative_sampler(batch_size_per_image=64, positive_fraction=0.3, pool_size=20, min_neg=16)
    detector.set_target_keys(box_key="box", label_key="label")
    detector.set_cls_loss(FocalLoss(reduction="mean", gamma=2.0))
    detector.set_box_regression_loss(BoxGIoULoss(reduction="mean"), encode_gt=False, decode_pred=True)
    detector.set_box_selector_parameters(
        score_thresh=_LEAST_SCORE, topk_candidates_per_level=1000, nms_thresh=0.22, detections_per_img=_MOST
    )
    detector.set_sliding_window_inferer([plan.size] * 3, overlap=0.25, sw_batch_size=4, mode="constant")
    optimiser = torch.optim.AdamW(detector.parameters(), lr=5e-4, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-4, total_steps=plan.steps, pct_start=0.1)
    shares = np.array([scan.share for scan in scans], dtype=np.float64)
    detector.train()
    started = time.monotonic()
    for step in range(1, plan.steps + 1):
        chosen = [scans[n] for n in rng.choice(len(scans), plan.batch, p=shares / shares.sum())]
        patches = cut_patches(chosen, rng, plan.size)
        targets = [
            {"box": box, "label": torch.zeros(len(box), dtype=torch.long, device=device)} for box in patches.boxes
        ]
        losses = detector(list(patches.image), targets)
        loss = losses["classification"] + losses["box_regression"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if step % 200 == 0 or step == plan.steps:
            say(
                f"RetinaNet step {step}/{plan.steps}  loss {float(loss.detach()):.4f}  "
                f"{time.monotonic() - started:.0f} s"
            )
    return detector.eval()


def judge_retinanet(detector: Any, inferer: Any, scans: Iterable[Scan], spacing_mm: float) -> Verdict:
    """Judge RetinaNet on the same scans: the middles of its boxes inside the lungs' surroundings."""
    judged: list[Judged] = []
    seconds = 0.0
    for number, scan in enumerate(scans):
        with torch.inference_mode():
            crop, region, inside = inferer.cropped(scan.hu.float()[None, None], scan.lungs[None, None])
            started = time.perf_counter()
            (answer,) = detector([crop[0]], use_inferer=True)
            boxes, scores = answer["box"].cpu().numpy(), answer["label_scores"].cpu().numpy()
            seconds += time.perf_counter() - started
            middles = (boxes[:, :3] + boxes[:, 3:]) / 2
            kept = [
                (float(score), middle)
                for score, middle in zip(scores, middles, strict=True)
                if bool(region[(0, 0, *np.clip(np.round(middle).astype(int), 0, np.array(region.shape[2:]) - 1))])
            ]
            start = np.array([part.start for part in inside[2:]])
            judged.append(_judged(str(number), scan, [(score, middle + start) for score, middle in kept], spacing_mm))
    return Verdict(
        tuple(judged), performance(judged), performance(judged, at_least(6.0)), None, None, None, seconds / len(judged)
    )


def _judged(name: str, scan: Scan, found: Sequence[tuple[float, Any]], spacing_mm: float) -> Judged:
    """In millimetres of the scan's own grid: distances are all that counts."""
    candidates = tuple(Candidate(tuple(float(c) * spacing_mm for c in at), score) for score, at in found)  # type: ignore[arg-type]
    nodules = tuple(
        Reference(
            centre_mm=tuple(float(c) * spacing_mm for c in centre),  # type: ignore[arg-type]
            diameter_mm=float(diameter) * spacing_mm,
            attenuation=KINDS[int(scan.attenuation[n])],
        )
        for n, (centre, diameter) in enumerate(zip(scan.centres, scan.diameters, strict=True), start=1)
    )
    return Judged(name, candidates, nodules)


def _dice(inside: torch.Tensor, instances: torch.Tensor, number: int) -> float:
    """Overlap with one true nodule in the box around it, other nodules left out."""
    marked = torch.nonzero(instances == number)
    low, high = marked.min(dim=0).values - _AROUND, marked.max(dim=0).values + _AROUND + 1
    box = tuple(slice(max(0, int(a)), int(b)) for a, b in zip(low, high, strict=True))
    truth = instances[box] == number
    said = (inside[box] > 0) & ((instances[box] == number) | (instances[box] == 0))
    return float(2 * (truth & said).sum() / (truth.sum() + said.sum()).clamp(min=1))
