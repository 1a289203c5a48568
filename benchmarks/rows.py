"""The rows: what each contestant does, and how far its output is from ours."""

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn

from mmseg_beit.scenes import render_scene

from . import gpu, models
from .measure import held_bytes, interleave, weight_bytes
from .pretraining import pretraining
from .report import Row


@dataclass
class Bench:
    """What all rows share: the models, sizes and the number of rounds."""

    size: str = 'base'
    device: str = 'cpu'
    tiny: bool = False
    rounds: int = 3
    peers: dict[str, nn.Module] = field(default_factory=dict)

    @cached_property
    def config(self) -> dict:
        """Our segmentor's config."""
        return models.segmentor_config(self.size, self.tiny)

    @cached_property
    def ours(self) -> nn.Module:
        """Our segmentor."""
        return models.build_ours(self.config).to(self.device)

    @cached_property
    def mmseg(self) -> nn.Module:
        """Mmseg's segmentor with the same weights."""
        return models.build_mmseg(self.config, self.ours).to(self.device)

    @cached_property
    def transformers(self) -> nn.Module:
        """Transformers' segmentor with the same weights."""
        return models.build_transformers(self.ours, self.config).to(self.device).eval()

    @property
    def side(self) -> int:
        """Side of the crop in pixels."""
        return 64 if self.tiny else 512

    def image(self, height: int, width: int, batch: int = 1) -> Tensor:
        """Random normalised images, float32 (B, 3, H, W)."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, 3, height, width, generator=generator).to(self.device)

    def run(
        self,
        title: str,
        agreement: str = '',
        models: dict[str, nn.Module] | None = None,
        **contestants: Callable[[], object],
    ) -> Row:
        """Measures contestants in turns.

        Args:
            title: Of the row.
            agreement: How far the outputs are apart.
            models: Model of each contestant. What it holds beside the weights that all have counts as its memory.
            contestants: Functions by name.
        """
        row = Row(title, interleave(contestants, self.rounds, self.device), agreement)
        for name, model in (models or {}).items():
            row.results[name].peak_mb += (held_bytes(model) - weight_bytes(models['mmseg'])) / 1e6
        return row


def _no_grad(function: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return function()

    return run


def _apart(ours: Tensor, theirs: Tensor) -> str:
    difference = (ours - theirs).abs().max().item()
    return f'largest difference {difference:.1e} of values up to {theirs.abs().max().item():.3g}'


def backbone(bench: Bench) -> list[Row]:
    """Backbone forward."""
    img = bench.image(bench.side, bench.side)
    ours, mmseg = bench.ours.eval().backbone, bench.mmseg.eval().backbone
    run_ours, run_mmseg = _no_grad(lambda: ours(img)), _no_grad(lambda: mmseg(img))
    agreement = _apart(run_ours()[-1], run_mmseg()[-1])
    title = f'backbone forward {bench.side}'
    return [bench.run(title, agreement, dict(ours=ours, mmseg=mmseg), ours=run_ours, mmseg=run_mmseg)]


def head(bench: Bench) -> list[Row]:
    """Neck and decode head forward."""
    with torch.no_grad():
        features = bench.ours.eval().backbone(bench.image(bench.side, bench.side))
    ours, mmseg = bench.ours.fuse(), bench.mmseg.eval()
    run_ours = _no_grad(lambda: ours.decode_head(ours.neck(features)))
    run_mmseg = _no_grad(lambda: mmseg.decode_head(mmseg.neck(features)))
    agreement = _apart(run_ours(), run_mmseg())
    return [bench.run(f'neck and head forward {bench.side}', agreement, ours=run_ours, mmseg=run_mmseg)]


def _labels_ours(model: nn.Module, img: Tensor, autocast: bool = False) -> Tensor:
    with torch.no_grad(), torch.autocast(img.device.type, torch.bfloat16, enabled=autocast):
        return torch.stack([sample.pred_sem_seg.data[0] for sample in model.predict(img)])


def _labels_mmseg(model: nn.Module, img: Tensor) -> Tensor:
    size = tuple(img.shape[2:])
    samples = [SegDataSample(metainfo=dict(ori_shape=size, img_shape=size, pad_shape=size)) for _ in img]
    with torch.no_grad():
        return torch.stack([sample.pred_sem_seg.data[0] for sample in model.predict(img, samples)])


def _labels_transformers(model: nn.Module, img: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(pixel_values=img).logits
        return F.interpolate(logits, size=img.shape[2:], mode='bilinear', align_corners=False).argmax(1)


def _same(ours: Tensor, theirs: Tensor) -> str:
    return f'{(ours == theirs).float().mean().item():.4%} of the labels equal'


def _wide_inference(bench: Bench, mode: str) -> Row:
    """A picture wider than the crop. mmseg has tables for its crop only, so it cannot take it whole."""
    ours, mmseg = bench.ours, bench.mmseg
    ours.test_cfg.mode = mmseg.test_cfg.mode = mode
    img = bench.image(bench.side, -(-bench.side * 4 // 3))
    title = f'inference {bench.side}x{img.shape[3]} {mode}'
    if mode == 'whole':
        peer = bench.transformers
        agreement = (
            f'mmseg crashes on this size; {_same(_labels_ours(ours, img), _labels_transformers(peer, img))} '
            '(transformers, which resizes its tables linearly and leaves the last columns out)'
        )
        run_ours, run_theirs = partial(_labels_ours, ours, img), partial(_labels_transformers, peer, img)
        return bench.run(title, agreement, ours=run_ours, transformers=run_theirs)
    agreement = _same(_labels_ours(ours, img), _labels_mmseg(mmseg, img))
    run_ours, run_mmseg = partial(_labels_ours, ours, img), partial(_labels_mmseg, mmseg, img)
    return bench.run(title, agreement, dict(ours=ours, mmseg=mmseg), ours=run_ours, mmseg=run_mmseg)


def inference(bench: Bench) -> list[Row]:
    """Images to label maps in float32: whole image at the crop size."""
    side = bench.side
    ours, mmseg, img, expected = _whole_inference(bench)
    return [
        bench.run(
            f'inference {side}x{side} float32',
            f'{_same(_labels_ours(ours, img), expected)} (mmseg), '
            f'{_same(_labels_ours(ours, img), _labels_transformers(bench.transformers, img))} (transformers)',
            dict(ours=ours, mmseg=mmseg, transformers=bench.transformers),
            ours=lambda: _labels_ours(ours, img),
            mmseg=lambda: _labels_mmseg(mmseg, img),
            transformers=lambda: _labels_transformers(bench.transformers, img),
        )
    ]


def half(bench: Bench) -> list[Row]:
    """Images to label maps: ours in bfloat16 against mmseg in float32."""
    side = bench.side
    ours, mmseg, img, expected = _whole_inference(bench)
    return [
        bench.run(
            f'inference {side}x{side}, ours bfloat16, mmseg float32',
            _same(_labels_ours(ours, img, autocast=True), expected)
            + ' (random weights: labels are near ties; python -m benchmarks.agreement asks a trained model)',
            dict(ours=ours, mmseg=mmseg),
            ours=lambda: _labels_ours(ours, img, autocast=True),
            mmseg=lambda: _labels_mmseg(mmseg, img),
        )
    ]


def wide(bench: Bench) -> list[Row]:
    """A picture wider than the crop to its label map, whole and by windows."""
    bench.ours.fuse()
    bench.mmseg.eval()
    return [_wide_inference(bench, mode) for mode in ('whole', 'slide')]


def _whole_inference(bench: Bench) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Both models ready for whole images, an image, and the labels that mmseg gives it."""
    ours, mmseg = bench.ours.fuse(), bench.mmseg.eval()
    for model in (ours, mmseg):
        model.test_cfg.mode = 'whole'
    img = bench.image(bench.side, bench.side)
    return ours, mmseg, img, _labels_mmseg(mmseg, img)


def runtimes(bench: Bench) -> list[Row]:
    """Our network eager, compiled, and as ONNX file: pictures of the crop's size to label maps."""
    import onnxruntime

    from mmseg_beit.apis.export import write_graph
    from mmseg_beit.models.exportable import ExportableSegmentor

    ours = bench.ours.fuse()
    ours.test_cfg.mode = 'whole'
    img = bench.image(bench.side, bench.side)

    def network(img: Tensor) -> Tensor:
        logits = ours.decode_head(ours.neck(ours.backbone(img)))
        return F.interpolate(logits, size=img.shape[2:], mode='bilinear', align_corners=False).argmax(1)

    compiled = torch.compile(network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        write_graph(ExportableSegmentor(ours.cpu(), max(bench.side, 8 * 16), 'mask').eval(), path, 'onnx')
        ours.to(bench.device)
        session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
        size = path.stat().st_size / 1e6

    def run_onnx() -> Tensor:
        return torch.from_numpy(session.run(None, {'image': img.cpu().numpy()})[0])

    expected = _labels_ours(ours, img)
    with torch.no_grad():
        agreement = (
            f'compiled: {_same(compiled(img), expected)}, onnx ({size:.0f} MB): {_same(run_onnx(), expected.cpu())}'
        )
    title = f'runtimes {bench.side}x{bench.side} float32'
    eager = partial(_labels_ours, ours, img)
    return [bench.run(title, agreement, ours=eager, compiled=_no_grad(lambda: compiled(img)), onnxruntime=run_onnx)]


def training(bench: Bench) -> list[Row]:
    """A training step of two images: loss, gradients, AdamW."""
    side = bench.side
    img = bench.image(side, side, batch=2)
    labels = torch.randint(0, 150, (2, 1, side, side), generator=torch.Generator().manual_seed(0)).to(bench.device)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]

    def stepper(model: nn.Module, **adamw) -> Callable[[], float]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.05, **adamw)

        def step() -> float:
            model.train()
            torch.manual_seed(0)
            losses = model.loss(img, samples)
            loss = sum(value for name, value in losses.items() if 'loss' in name)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    ours, mmseg = stepper(bench.ours, fused=True), stepper(bench.mmseg)
    first = f'first loss {ours():.6f}, mmseg {mmseg():.6f}'
    models = dict(ours=bench.ours, mmseg=bench.mmseg)
    return [bench.run(f'training step, 2 images of {side}', first, models, ours=ours, mmseg=mmseg)]


def sample(bench: Bench) -> list[Row]:
    """One training sample from its files: a rendered scene, noise with labels of all classes, and a large picture."""
    rng = np.random.default_rng(0)
    # Smooth noise compresses like a photograph of many details.
    picture = cv2.resize(rng.integers(0, 256, (32, 43, 3), dtype=np.uint8), (683, 512), interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(rng.integers(0, 151, (16, 21), dtype=np.uint8), (683, 512), interpolation=cv2.INTER_NEAREST)
    scene, scene_mask = render_scene(0, 0, 2, (512, 683))
    pairs = {'a scene': (scene[:, :, ::-1], scene_mask), 'noise': (picture, mask)}
    large = [
        cv2.resize(array, (3072, 2304), interpolation=interpolation)
        for array, interpolation in zip(pairs['a scene'], (cv2.INTER_CUBIC, cv2.INTER_NEAREST), strict=True)
    ]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # as in the worker processes of a training
    try:
        rows = [_sample_row(bench, name, *pair) for name, pair in pairs.items()]
        return [*rows, _sample_row(bench, '3072x2304', *large, enough_for=(4096, 1024))]
    finally:
        cv2.setNumThreads(threads)


def _sample_row(
    bench: Bench, name: str, picture: np.ndarray, mask: np.ndarray, enough_for: tuple[int, int] | None = None
) -> Row:
    """With ``enough_for`` ours runs once more with JPEGs at a fraction of their sides, whose pixels differ."""
    from mmcv.transforms import Compose

    from mmseg_beit.datasets.transforms import resize_on_demand

    with tempfile.TemporaryDirectory() as folder:
        paths = str(Path(folder, 'image.jpg')), str(Path(folder, 'mask.png'))
        # Files like ADE20K's: 30 to 50 KB for a photograph of this size, masks of 4 to 12 KB that unpack as fast.
        cv2.imwrite(paths[0], picture, [cv2.IMWRITE_JPEG_QUALITY, 75])
        Image.fromarray(mask).save(paths[1])
        pipeline = Config.fromfile(models.CONFIGS / 'beit_upernet_ade20k.py').train_pipeline
        steps = {'ours': ('mmseg_beit', pipeline), 'mmseg': ('mmseg', pipeline)}
        if enough_for:
            reduced = [dict(pipeline[0], enough_for=enough_for), *pipeline[1:]]
            steps['ours, JPEG at a fraction'] = 'mmseg_beit', reduced
        composed = {}
        for who, (scope, of_scope) in steps.items():
            with DefaultScope.overwrite_default_scope(scope):
                composed[who] = Compose(of_scope)
            resize_on_demand(composed[who].transforms)  # as our data sets do

        count = 10 if enough_for else 300  # Time enough to forget that each run gets its memory from the system anew.

        def draw(who: str) -> dict:
            np.random.seed(0)  # noqa: NPY002 (the transforms draw from NumPy's global generator)
            for _ in range(count):
                info = dict(img_path=paths[0], seg_map_path=paths[1], reduce_zero_label=True, seg_fields=[])
                result = composed[who](info | dict(num_classes=150))
            return result

        ours, theirs = draw('ours'), draw('mmseg')
        equal = torch.equal(ours['data_samples'].gt_sem_seg.data, theirs['data_samples'].gt_sem_seg.data)
        difference = (ours['inputs'].int() - theirs['inputs'].int()).abs().max().item()
        agreement = f'same draws: masks equal: {equal}, images apart by at most {difference} of 255'
        if enough_for:
            apart = (draw('ours, JPEG at a fraction')['inputs'].float() - theirs['inputs']).abs().mean()
            agreement += f'; JPEG at a fraction: apart by {apart:.1f} on average'
        title = f'{count} training samples, {name}'
        return bench.run(title, agreement, **{who: partial(draw, who) for who in steps})


def metric(bench: Bench) -> list[Row]:
    """Scoring a prediction of the crop's size: of random labels, and of areas as predictions have them."""
    from mmseg.evaluation import IoUMetric as MMSegIoUMetric

    from mmseg_beit.evaluation import IoUMetric

    side = bench.side
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 150, (2, 1, side, side), generator=generator)
    areas = noise[:1, :, :8, :8].repeat_interleave(side // 8, 2).repeat_interleave(side // 8, 3)
    areas = torch.cat([areas, areas.roll(3, 2)])  # right but for the outlines
    meta = dict(classes=[str(i) for i in range(150)])

    def score(cls: type, data_sample: dict) -> list:
        scorer = cls(iou_metrics=['mIoU'])
        scorer.dataset_meta = meta
        for _ in range(10):
            scorer.process({}, [data_sample])
        return [sum(part).tolist() for part in zip(*scorer.results, strict=True)]

    rows = []
    for name, (labels, predicted) in {'random labels': noise, 'areas': areas}.items():
        data_sample = SegDataSample(gt_sem_seg=PixelData(data=labels), pred_sem_seg=PixelData(data=predicted)).to_dict()
        agreement = f'counts equal: {score(IoUMetric, data_sample) == score(MMSegIoUMetric, data_sample)}'
        ours, mmseg = (partial(score, cls, data_sample) for cls in (IoUMetric, MMSegIoUMetric))
        rows.append(bench.run(f'metric, 10 predictions, {name}', agreement, ours=ours, mmseg=mmseg))
    return rows


def imports(bench: Bench) -> list[Row]:
    """A fresh process until a segmentor can be built."""

    def start(statement: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, '-W', 'ignore', '-c', statement], check=True)

    return [
        bench.run(
            'import to a registered segmentor',
            ours=start('from mmseg_beit.registry import MODELS; assert MODELS.get("EncoderDecoder")'),
            mmseg=start('from mmseg.registry import MODELS; assert MODELS.get("EncoderDecoder")'),
            transformers=start('from transformers import BeitForSemanticSegmentation'),
        )
    ]


def scaling(bench: Bench) -> list[Row]:
    """Backbone forward with the image's side, and with the batch; the peer has tables for its own size only."""
    rows = []
    for side in (48, 96) if bench.tiny else (256, 512, 768, 1024):
        backbone = dict(models.segmentor_config(bench.size, bench.tiny)['backbone'], img_size=(side, side))
        with warnings.catch_warnings(), DefaultScope.overwrite_default_scope('mmseg'):
            warnings.simplefilter('ignore')
            from mmseg.registry import MODELS as MMSEG_MODELS

            peer = MMSEG_MODELS.build(backbone).to(bench.device)
        rows.append(_backbone_row(bench, f'backbone forward {side}x{side}', peer, bench.image(side, side)))
    for batch in (2, 4):
        img = bench.image(bench.side, bench.side, batch)
        rows.append(_backbone_row(bench, f'backbone forward {bench.side}, {batch} images', bench.mmseg.backbone, img))
    return rows


def _backbone_row(bench: Bench, title: str, peer: nn.Module, img: Tensor) -> Row:
    ours = bench.ours.eval().backbone
    peer.eval()  # mmseg's returns nothing
    models = dict(ours=ours, mmseg=peer)
    return bench.run(title, '', models, ours=_no_grad(lambda: ours(img)), mmseg=_no_grad(lambda: peer(img)))


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    'import': imports,
    'sample': sample,
    'metric': metric,
    'backbone': backbone,
    'head': head,
    'inference': inference,
    'half': half,
    'wide': wide,
    'training': training,
    'pretraining': pretraining,
    'scaling': scaling,
    'runtimes': runtimes,
    'amp': gpu.amp,
    'attention': gpu.attention,
    'loss': gpu.loss,
}
ON_A_GPU_ONLY = {'amp', 'attention', 'loss'}
"""Rows that a run on a CPU leaves out unless they are named."""
