"""Mixed precision without a GPU."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmseg_beit.engine.amp import AmpOptimWrapper, default_amp_dtype
from mmseg_beit.errors import InputError


def test_bfloat16_computes_in_bfloat16_and_steps_unscaled():
    torch.manual_seed(0)
    model, reference = nn.Linear(8, 4), nn.Linear(8, 4)
    reference.load_state_dict(model.state_dict())
    x = torch.randn(3, 8)
    amp = AmpOptimWrapper(dtype='bfloat16', optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    plain = OptimWrapper(optimizer=torch.optim.SGD(reference.parameters(), lr=0.1))
    with amp.optim_context(model):
        output = model(x)
        loss = output.float().square().mean()
    assert output.dtype == torch.bfloat16
    amp.update_params(loss)
    plain.update_params(reference(x).square().mean())
    torch.testing.assert_close(model.weight, reference.weight, rtol=0, atol=1e-3)
    assert not torch.equal(model.weight, reference.weight)


def test_state_goes_out_and_in():
    model = nn.Linear(2, 2)
    wrapper = AmpOptimWrapper(dtype='bfloat16', optimizer=torch.optim.AdamW(model.parameters()))
    wrapper.update_params(model(torch.ones(1, 2)).sum())
    other = AmpOptimWrapper(dtype='bfloat16', optimizer=torch.optim.AdamW(model.parameters()))
    other.load_state_dict(wrapper.state_dict())
    assert other.optimizer.state_dict()['state'][0]['step'] == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason='says what happens without a GPU')
def test_without_a_gpu_bfloat16_is_the_default_and_float16_refused():
    assert default_amp_dtype() == 'bfloat16'
    assert AmpOptimWrapper(optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters())).cast_dtype == torch.bfloat16
    with pytest.raises(InputError, match='needs a GPU'):
        AmpOptimWrapper(dtype='float16', optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters()))


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_on_a_gpu_both_types_train(dtype):
    model = nn.Linear(8, 4).cuda()
    before = model.weight.detach().clone()
    wrapper = AmpOptimWrapper(dtype=dtype, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    assert wrapper.loss_scaler.is_enabled() == (dtype == 'float16')
    with wrapper.optim_context(model):
        loss = model(torch.randn(3, 8).cuda()).float().square().mean()
    wrapper.update_params(loss)
    assert not torch.equal(model.weight, before)
