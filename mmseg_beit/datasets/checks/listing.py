"""Checks of the folders and names of a data set: quick enough to run each time one is built."""

import os
from collections.abc import Iterable, Sequence

from ...errors import MissingFileError

_IMAGE_TYPES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def check_folders(dataset) -> None:
    """Checks that the folders and the list of names that a data set will read exist.

    Args:
        dataset: A ``BaseSegDataset`` whose paths are joined, listed or not.

    Raises:
        MissingFileError: One is missing; the message says from which part of the path on.
    """
    if not is_local(dataset):
        return
    if dataset.ann_file and not os.path.exists(dataset.ann_file):
        raise MissingFileError(
            f'list of names {dataset.ann_file} does not exist: correct ann_file in the dataset, or '
            "set ann_file='' to use every image of the folder"
        )
    for field in ('img_path', 'seg_map_path') if needs_masks(dataset) else ('img_path',):
        folder = dataset.data_prefix.get(field)
        if folder is not None and not os.path.isdir(folder):
            raise MissingFileError(_missing_folder(folder, field))


def check_names(dataset, data_list: Sequence[dict]) -> list[str]:
    """Compares the names of images and masks.

    Args:
        dataset: A ``BaseSegDataset``.
        data_list: What its ``load_data_list`` found: ``img_path`` and, with masks, ``seg_map_path`` of each item.

    Returns:
        Doubts that do not stop training, one sentence each.

    Raises:
        MissingFileError: The folder holds no image of that suffix, or an image or a mask lacks its counterpart.
    """
    if not is_local(dataset):
        return []
    img_dir, seg_dir = dataset.data_prefix.get('img_path'), dataset.data_prefix.get('seg_map_path')
    listed = bool(dataset.ann_file) and not os.path.isdir(dataset.ann_file)
    all_images = set(_files(img_dir))
    wanted_images = {item['img_path'] for item in data_list}
    ignored = [name for name in all_images - wanted_images if name.lower().endswith(_IMAGE_TYPES)]
    ignored = sorted(filter(os.path.isfile, ignored))  # a link to nowhere is no picture
    if not data_list:
        raise MissingFileError(_no_image(dataset, img_dir, listed, ignored))
    if listed and (lost := sorted(wanted_images - all_images)):
        raise MissingFileError(
            f'{_count(lost, "image")} named in {dataset.ann_file} {_are(lost)} not in {img_dir} '
            f'({_few(lost, img_dir)}): add the images, or correct the list'
        )
    if seg_dir is not None and needs_masks(dataset):
        _check_masks(dataset, data_list, img_dir, seg_dir, listed, ignored)
    if ignored and not listed and img_dir != seg_dir:
        return [
            f'{_count(ignored, "picture")} in {img_dir} {_are(ignored)} not used because the name does not end in '
            f"img_suffix='{dataset.img_suffix}' ({_few(ignored, img_dir)}): rename or remove what was not intended"
        ]
    return []


def _check_masks(dataset, data_list, img_dir: str, seg_dir: str, listed: bool, ignored: Sequence[str]) -> None:
    all_masks = set(_files(seg_dir))
    unmasked = [item['img_path'] for item in data_list if item['seg_map_path'] not in all_masks]
    if len(unmasked) == len(data_list):
        found = sorted({os.path.splitext(name)[1] for name in all_masks})
        raise MissingFileError(
            f'no image in {img_dir} has a mask in {seg_dir} (first image {os.path.basename(unmasked[0])}, '
            f'its mask would be {os.path.basename(data_list[0]["seg_map_path"])}, '
            f'the folder has {" and ".join(found) or "no"} files): correct seg_map_path or seg_map_suffix'
        )
    if unmasked:
        raise MissingFileError(
            f'{_count(unmasked, "image")} in {img_dir} {_have(unmasked)} no mask in {seg_dir} '
            f'({_few(unmasked, img_dir)}): add the masks, or remove these images'
        )
    if listed:
        return  # a list may name some of the masks
    used = {item['seg_map_path'] for item in data_list}
    unused = sorted(name for name in all_masks - used if name.endswith(dataset.seg_map_suffix) and name not in ignored)
    if not unused or img_dir == seg_dir:
        return
    stems = {os.path.splitext(os.path.basename(name))[0] for name in ignored}
    others = [name for name in unused if os.path.basename(name).removesuffix(dataset.seg_map_suffix) in stems]
    if others:
        raise MissingFileError(
            f'{_count(ignored, "picture")} in {img_dir} with a mask {_are(ignored)} not used because the name does not '
            f"end in img_suffix='{dataset.img_suffix}' ({_few(ignored, img_dir)}): rename them to "
            f'{dataset.img_suffix}, or set img_suffix in the dataset'
        )
    raise MissingFileError(
        f'{_count(unused, "mask")} in {seg_dir} {_have(unused)} no image in {img_dir} '
        f'({_few(unused, seg_dir)}): add the images, remove these masks, or list in ann_file the '
        'names to use'
    )


def is_local(dataset) -> bool:
    """Whether the files lie in folders; a file backend of mmengine's (http, s3) is not looked into."""
    backend_args = dataset.backend_args or {}
    return backend_args.get('backend', 'local') == 'local' and '://' not in (dataset.data_prefix.get('img_path') or '')


def needs_masks(dataset) -> bool:
    """Whether the pipeline loads masks; a data set without pipeline is taken to."""
    from mmcv.transforms import LoadAnnotations

    transforms = list(flat_transforms(dataset.pipeline))
    return not transforms or any(isinstance(transform, LoadAnnotations) for transform in transforms)


def flat_transforms(compose) -> Iterable:
    """The transforms of a pipeline, those of test-time augmentation's branches included."""
    for transform in compose.transforms:
        yield transform
        for branch in getattr(transform, 'subroutines', ()):
            yield from flat_transforms(branch)


def _files(folder: str) -> Iterable[str]:
    """Paths of the visible files under `folder`, joined as mmseg joins them."""
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith('.')]
        inner = os.path.relpath(root, folder)
        for name in names:
            if not name.startswith('.'):
                yield os.path.join(folder, name if inner == '.' else os.path.join(inner, name))


def _missing_folder(folder: str, field: str) -> str:
    have = os.path.abspath(folder)
    while not os.path.isdir(have):
        have = os.path.dirname(have)
    siblings = sorted(name for name in os.listdir(have) if os.path.isdir(os.path.join(have, name)))
    hint = f'the nearest folder there is, {have}, has {", ".join(siblings[:6]) or "no sub-folder"}'
    return (
        f'folder {folder} does not exist ({hint}): put the data there, '
        f'or correct data_root and data_prefix.{field} in the dataset'
    )


def _no_image(dataset, img_dir: str, listed: bool, ignored: Sequence[str]) -> str:
    if listed:
        return f'list of names {dataset.ann_file} is empty: write one name without suffix per line'
    if not ignored:
        return f'folder {img_dir} holds no picture: put the images there, or correct data_prefix.img_path'
    suffixes = sorted({os.path.splitext(name)[1] for name in ignored})
    remedy = f"set img_suffix='{suffixes[0]}' in the dataset" if len(suffixes) == 1 else 'rename them to one suffix'
    return (
        f"folder {img_dir} holds no picture that ends in img_suffix='{dataset.img_suffix}', "
        f'but {len(ignored):,} in {", ".join(suffixes)} ({_few(ignored, img_dir)}): {remedy}'
    )


def _few(paths: Sequence[str], folder: str, limit: int = 3) -> str:
    names = [os.path.relpath(path, folder) for path in paths[:limit]]
    return ', '.join(names) + (', ...' if len(paths) > limit else '')


def _count(items: Sequence, noun: str) -> str:
    return f'{len(items):,} {noun}{"" if len(items) == 1 else "s"}'


def _are(items: Sequence) -> str:
    return 'is' if len(items) == 1 else 'are'


def _have(items: Sequence) -> str:
    return 'has' if len(items) == 1 else 'have'
