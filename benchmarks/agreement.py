"""``python -m benchmarks.agreement CONFIG CHECKPOINT``: what bfloat16 changes in a trained model's predictions.

Predicts every picture of the config's test data in float32 and under bfloat16 autocast, and prints the share of equal
labels and the mIoU of both.
"""

import argparse

import torch
from mmengine.config import DictAction
from mmengine.dataset import pseudo_collate
from rich.progress import track
from torch import Tensor

from mmseg_beit.apis import init_model
from mmseg_beit.apis.model import scope_of, test_dataset
from mmseg_beit.errors import run_tool
from mmseg_beit.registry import DATASETS


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.agreement', description=__doc__)
    parser.add_argument('config', metavar='CONFIG')
    parser.add_argument('checkpoint', metavar='CHECKPOINT')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    model = init_model(args.config, args.checkpoint, device=args.device, cfg_options=args.cfg_options)
    with scope_of(model.cfg):
        dataset = DATASETS.build(test_dataset(model.cfg))
    num_classes = len(model.dataset_meta['classes'])
    counts = {dtype: torch.zeros(num_classes, num_classes, dtype=torch.int64) for dtype in ('float32', 'bfloat16')}
    num_equal = num_pixels = 0
    for i in track(range(len(dataset)), 'predicting'):
        batch = pseudo_collate([dataset[i]])
        predicted = {dtype: predict(model, batch, dtype == 'bfloat16') for dtype in counts}
        truth = batch['data_samples'][0].gt_sem_seg.data[0].to(predicted['float32'].device)
        if truth.shape == predicted['float32'].shape:
            for dtype, labels in predicted.items():
                counts[dtype] += confusion(labels, truth, num_classes).cpu()
        num_equal += int((predicted['float32'] == predicted['bfloat16']).sum())
        num_pixels += predicted['float32'].numel()
    print(f'{num_equal / num_pixels:.4%} of {num_pixels} labels of {len(dataset)} pictures are equal')
    for dtype, table in counts.items():
        print(f'mIoU in {dtype}: {mean_iou(table):.2f}')
    return 0


def predict(model: torch.nn.Module, batch: dict, half: bool) -> Tensor:
    """Labels int64 (H, W) of a batch of one picture."""
    device = model.data_preprocessor.device
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        return model.test_step(batch)[0].pred_sem_seg.data[0].clone()


def confusion(labels: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Pixels by true and predicted class, int64 (K, K); truth outside 0..K-1 is left out."""
    valid = truth < num_classes
    return torch.bincount(truth[valid] * num_classes + labels[valid], minlength=num_classes**2).view(num_classes, -1)


def mean_iou(counts: Tensor) -> float:
    """Mean over the classes that occur, in percent."""
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    return (counts.diag()[union > 0] / union[union > 0]).mean().item() * 100


if __name__ == '__main__':
    run_tool(main)
