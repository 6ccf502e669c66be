"""The GPU that is not there refuses what a GPU refuses, and computes what the CPU computes."""

import pytest
import torch

from harness.conformance.pretended_gpu import pretended_gpu


@pytest.fixture(autouse=True)
def there():
    with pretended_gpu():
        yield


def test_numbers_are_those_of_the_cpu():
    x = torch.arange(6.0).view(2, 3)
    there = x.to("cuda")
    assert there.device == torch.device("cuda", 0)
    assert (there.T @ there).cpu().tolist() == (x.T @ x).tolist()
    assert torch.ones(3, device="cuda").mul_(2).sum().item() == 6.0


def test_training_is_that_of_the_cpu():
    """Weights after a step of SGD on y = w x from w = 1 with loss (w x)^2: w - lr 2 w x^2."""
    layer = torch.nn.Linear(1, 1, bias=False).to("cuda")
    torch.nn.init.ones_(layer.weight)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.125)
    layer(torch.tensor([[2.0]], device="cuda")).square().sum().backward()
    optimizer.step()
    assert layer.weight.item() == 1.0 - 0.125 * 2 * 4.0


@pytest.mark.parametrize(
    ("mix", "error"),
    [
        (lambda x: x + torch.ones(3), RuntimeError),
        (lambda x: torch.ones(3)[x.long()], RuntimeError),
        (lambda x: x.index_select(0, torch.tensor([0])), RuntimeError),
        (lambda x: torch.randn(3, device="cuda", generator=torch.Generator()), RuntimeError),
        (lambda x: x.numpy(), TypeError),
    ],
)
def test_what_a_gpu_refuses_is_refused(mix, error):
    with pytest.raises(error):
        mix(torch.ones(3).to("cuda"))


def test_what_a_gpu_takes_is_taken():
    x = torch.ones(3).to("cuda")
    assert (x * torch.tensor(2.0)).tolist() == [2.0, 2.0, 2.0]
    assert x[torch.tensor([0, 1])].tolist() == [1.0, 1.0]
    assert torch.zeros(3).copy_(x).tolist() == [1.0, 1.0, 1.0]
