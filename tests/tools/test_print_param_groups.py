"""tools/print_param_groups.py."""


def test_prints_one_line_per_group_and_the_total(tiny, capsys):
    assert tiny.call('print_param_groups.py', 'tiny.py') == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ['group', 'lr', 'lr', 'scale', 'weight', 'decay', 'tensors', 'parameters']
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:-1]}
    # Two blocks: depth 0 is the embedding, 3 the head, whose rate is the base rate.
    assert rows['layer_0_decay'][:3] == ['0.000729', '0.7290', '0.05']
    assert rows['layer_3_no_decay'][:3] == ['0.001', '1.0000', '0']
    assert lines[-1].startswith('8 groups, ')
    assert sum(int(row[-1].replace(',', '')) for row in rows.values()) == int(lines[-1].split()[2].replace(',', ''))


def test_names_and_options(tiny, capsys):
    options = ('--names', '--cfg-options', 'optim_wrapper.paramwise_cfg.no_decay=model')
    assert tiny.call('print_param_groups.py', 'tiny.py', *options) == 0
    text = capsys.readouterr().out
    listed = text[text.rindex('\nlayer_0_no_decay') :]
    assert '  backbone.cls_token  (1, 1, 32)' in listed.split('\nlayer_1')[0]


def test_a_config_without_training_is_refused(tiny, capsys):
    tiny.write_config('\noptim_wrapper = None\n', 'test_only.py')
    assert tiny.call('print_param_groups.py', 'test_only.py') == 2
    assert 'has no field optim_wrapper' in capsys.readouterr().err
