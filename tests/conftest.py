"""Fixtures and rules that hold for every test."""

import os
import random
from pathlib import Path

# Tiny models run fastest on one thread, in the tools that tests start as well.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if 'gpu' in item.keywords:
            item.add_marker(pytest.mark.skip(reason='no CUDA device'))


@pytest.fixture(autouse=True)
def seed():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - mmcv's transforms draw from the global generator
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def project():
    """The folder of the clone."""
    return PROJECT


def _shared(name):
    folder = PROJECT.parent / 'shared' / 'data' / name
    if not folder.is_dir():
        pytest.skip(f'needs the data in ../shared/data/{name}')
    return folder


@pytest.fixture(scope='session')
def msrc():
    """Folder of the MSRC v2 photographs beside the project; the test is skipped where there is none."""
    return _shared('msrc')


@pytest.fixture(scope='session')
def ade20k_samples():
    """Folder of four ADE20K pairs beside the project; the test is skipped where there is none."""
    return _shared('ade20k_samples')
