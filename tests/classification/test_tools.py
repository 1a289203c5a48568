"""tools/train.py, test.py, classify.py and make_image_folder.py on a tiny classifier, as a user starts them."""

import json
import shutil

import pytest
import torch

from tests.classification.conftest import write_picture
from tests.tools.conftest import PROJECT

CPU = ('--device', 'cpu')


def scalars(work_dir):
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def losses(work_dir):
    return {record['step']: record['loss'] for record in scalars(work_dir) if 'loss' in record}


def test_trains_tests_and_classifies(tiny, capsys):
    assert tiny.call('train.py', 'tiny.py', '--work-dir', 'run', *CPU) == 0
    assert 'top1' in capsys.readouterr().out
    found = losses(tiny.folder / 'run')
    assert list(found) == list(range(1, 13))
    assert found[12] < found[1]  # log(3) at first; colours are easy
    assert (tiny.folder / 'run' / 'epoch_4.pth').is_file()
    meta = torch.load(tiny.folder / 'run' / 'epoch_4.pth', weights_only=True)['meta']
    assert tuple(meta['dataset_meta']['classes']) == ('grass', 'road', 'water')

    assert tiny.call('test.py', 'tiny.py', 'run/epoch_4.pth', '--work-dir', 'test', *CPU) == 0
    validated = [record['accuracy/top1'] for record in scalars(tiny.folder / 'run') if 'accuracy/top1' in record][-1]
    tested = json.loads(next((tiny.folder / 'test').glob('*/2*.json')).read_text())['accuracy/top1']
    assert tested == pytest.approx(validated)
    figures = json.loads((tiny.folder / 'test' / 'metrics.json').read_text())
    assert figures == {
        'config': 'tiny.py', 'checkpoint': 'run/epoch_4.pth', 'tta': False, 'images': 9, 'accuracy/top1': tested
    }  # fmt: skip
    assert 'Figures written to test/metrics.json' in capsys.readouterr().out

    capsys.readouterr()
    shutil.copytree(tiny.data / 'val' / 'water', tiny.folder / 'photos')
    (tiny.folder / 'photos' / 'broken.jpg').write_bytes(b'no picture')
    write_picture(tiny.folder / 'photos' / 'long.png', (50, 90, 200), size=(2, 400))
    arguments = ('run/epoch_4.pth', '--out', 'out/predictions.json', *CPU)
    assert tiny.call('classify.py', 'photos', 'tiny.py', *arguments, '--batch-size', 2) == 1
    said = capsys.readouterr()
    predictions = json.loads((tiny.folder / 'out' / 'predictions.json').read_text())
    assert list(predictions) == ['photos/0.jpg', 'photos/1.jpg', 'photos/2.jpg', 'photos/long.png']
    for path, prediction in predictions.items():
        assert set(prediction) == {'class index', 'class name', 'score'}
        assert prediction['class name'] == ('grass', 'road', 'water')[prediction['class index']]
        assert 1 / 3 <= prediction['score'] <= 1
        assert path in said.out
    assert 'photos/broken.jpg cannot be read' in said.err
    assert '1 of 5 pictures could not be used' in said.err

    assert tiny.call('classify.py', 'photos/0.jpg', 'tiny.py', *arguments) == 0
    again = json.loads((tiny.folder / 'out' / 'predictions.json').read_text())
    assert again == {'photos/0.jpg': predictions['photos/0.jpg']}


def test_mixup_mixed_precision_and_running_means(tiny):
    tiny.write_config(
        "model.update(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))\n"
        "custom_hooks = [dict(type='EMAHook', momentum=0.1, priority='ABOVE_NORMAL')]\n"
        'train_cfg.update(max_epochs=2)\n'
    )
    assert tiny.call('train.py', 'tiny.py', '--work-dir', 'run', '--amp', 'bf16', *CPU) == 0
    assert len(losses(tiny.folder / 'run')) == 6
    checkpoint = torch.load(tiny.folder / 'run' / 'epoch_2.pth', weights_only=True)
    assert not torch.equal(
        checkpoint['state_dict']['head.fc.weight'], checkpoint['ema_state_dict']['module.head.fc.weight']
    )
    assert tiny.call('train.py', 'tiny.py', '--work-dir', 'run', '--resume', *CPU) == 0
    assert tiny.call('test.py', 'tiny.py', 'run/epoch_2.pth', '--work-dir', 'test', *CPU) == 0


def test_a_resumed_run_goes_on_with_the_same_losses(tiny):
    assert tiny.call('train.py', 'tiny.py', '--work-dir', 'whole', *CPU) == 0
    shutil.copytree(tiny.folder / 'whole', tiny.folder / 'part', ignore=shutil.ignore_patterns('epoch_[34].pth', '2*'))
    (tiny.folder / 'part' / 'last_checkpoint').write_text('part/epoch_2.pth')
    assert tiny.call('train.py', 'tiny.py', '--work-dir', 'part', '--resume', *CPU) == 0
    expected = {step: loss for step, loss in losses(tiny.folder / 'whole').items() if step > 6}
    assert losses(tiny.folder / 'part') == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_curve_of_one_with_twice_the_batch(tiny):
    option = 'train_dataloader.batch_size={}'
    env = dict(CUDA_VISIBLE_DEVICES='')
    one = tiny.run('train.py', 'tiny.py', '--work-dir', 'one', '--cfg-options', option.format(8), **env)
    two = tiny.run('dist_train.sh', 'tiny.py', 2, '--work-dir', 'two', '--cfg-options', option.format(4), **env)
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert losses(tiny.folder / 'two') == pytest.approx(losses(tiny.folder / 'one'), abs=1e-4)


@pytest.mark.parametrize(
    'prepare, said',
    [
        (lambda tiny: write_picture(tiny.data / 'val' / 'sky' / '0.jpg', (1, 2, 3)), 'val has the class sky that'),
        (lambda tiny: shutil.rmtree(tiny.data / 'train'), 'train does not exist'),
        (
            lambda tiny: tiny.write_config('train_dataloader.update(batch_size=25, drop_last=True)\n'),
            'holds 24 pictures, fewer than one batch of train_dataloader.batch_size=25',
        ),
        (lambda tiny: tiny.write_config("model['head']['num_classes'] = 4\n"), 'set model.head.num_classes=3'),
    ],
    ids=['class', 'folder', 'batch', 'count'],
)
def test_refuses_in_one_sentence(tiny, capsys, prepare, said):
    prepare(tiny)
    assert tiny.call('train.py', 'tiny.py', '--work-dir', 'run', *CPU) == 2
    err = capsys.readouterr().err
    assert said in err and err.count('error:') == 1 and 'Traceback' not in err


def test_a_test_writes_no_masks_of_a_classifier(tiny, capsys):
    (tiny.folder / 'any.pth').touch()
    assert tiny.call('test.py', 'tiny.py', 'any.pth', '--out', 'masks', *CPU) == 2
    assert '--out writes the masks that an IoUMetric in test_evaluator sees' in capsys.readouterr().err


def test_classify_refuses_a_segmentor(tiny, capsys):
    arguments = (PROJECT / 'configs' / 'beit_tiny_upernet_scenes.py', 'none.pth', *CPU)
    assert tiny.call('classify.py', tiny.data / 'val' / 'road', *arguments) == 2
    assert 'is no classifier' in capsys.readouterr().err


def test_folders_from_names_and_from_masks(tiny, capsys):
    import numpy as np
    from PIL import Image

    source = tiny.folder / 'source'
    for split in ('training', 'validation'):
        for name, value in (('1_a', 7), ('2_b', 9), ('none', 0)):
            write_picture(source / 'images' / split / f'{name}.jpg', (1, 2, 3))
            mask = np.full((36, 48), value, np.uint8)
            mask[:10] = 7
            (source / 'masks' / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask if value else mask * 0).save(source / 'masks' / split / f'{name}.png')
    make = ('make_image_folder.py', 'source/images', '--out')
    assert tiny.call(*make, 'names', '--from-names', '([0-9])_') == 0
    assert tiny.call(*make, 'masks', '--from-masks', 'source/masks', '7=road', '9=tree', '--copy') == 0
    assert '2 pictures have no class' in capsys.readouterr().out
    for out, classes in (('names', '12'), ('masks', ('road', 'tree'))):
        for split in ('train', 'val'):
            found = sorted(
                path.relative_to(tiny.folder / out / split) for path in (tiny.folder / out / split).glob('*/*')
            )
            assert [str(path) for path in found] == [f'{classes[0]}/1_a.jpg', f'{classes[1]}/2_b.jpg']
            assert all(Image.open(tiny.folder / out / split / path).size == (48, 36) for path in found)
    assert tiny.call(*make, 'names', '--from-names', '([0-9])_') == 2
    assert tiny.call(*make, 'new', '--from-names', '[0-9]') == 2
    assert tiny.call(*make, 'new', '--from-masks', 'source/masks', 'road') == 2
    assert not (tiny.folder / 'new').exists()
