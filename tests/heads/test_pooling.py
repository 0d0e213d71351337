"""Each pooling against its formula, sequence by sequence."""

import pytest
import torch

from modernbert.errors import ConfigError
from modernbert.heads.pooling import POOLINGS, pool

LENGTHS = [3, 1, 5, 40]
BOUNDS = torch.tensor([0, 3, 4, 9, 49], dtype=torch.int32)


def by_hand(mode: str, x: torch.Tensor) -> torch.Tensor:
    """One sequence [n, D] -> [D], token by token."""
    if mode == "cls":
        return x[0]
    if mode == "lasttoken":
        return x[-1]
    if mode == "max":
        return torch.stack([max(column, key=float) for column in x.unbind(dim=1)])
    weights = [i + 1.0 for i in range(len(x))] if mode == "weightedmean" else [1.0] * len(x)
    total = sum(weight * row for weight, row in zip(weights, x, strict=True))
    return total / (len(x) ** 0.5 if mode == "mean_sqrt_len_tokens" else sum(weights))


@pytest.mark.parametrize("mode", POOLINGS)
def test_a_pooling_is_its_formula_in_each_sequence(mode):
    x = torch.randn(49, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([by_hand(mode, sequence) for sequence in x.split(LENGTHS)])
    torch.testing.assert_close(pool(x, BOUNDS, mode), expected)


@pytest.mark.parametrize("mode", POOLINGS)
def test_a_pooling_sums_in_fp32_and_answers_in_the_dtype_it_was_given(mode):
    x = torch.rand(49, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = pool(x, BOUNDS, mode)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, pool(x.float(), BOUNDS, mode).bfloat16())


@pytest.mark.parametrize("mode", POOLINGS)
def test_gradients_reach_the_tokens(mode):
    x = torch.randn(49, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pool(x, BOUNDS, mode).sum().backward()
    assert x.grad is not None
    rows = {"cls": [0, 3, 4, 9], "lasttoken": [2, 3, 8, 48]}.get(mode)
    touched = x.grad.any(dim=1).nonzero().flatten().tolist()
    if mode != "max":
        assert touched == (rows or list(range(49)))
    assert x.grad.sum().item() == pytest.approx(
        6 * (sum(n**0.5 for n in LENGTHS) if mode == "mean_sqrt_len_tokens" else len(LENGTHS)), rel=1e-5
    )


@pytest.mark.parametrize("mode", POOLINGS)
def test_a_sequence_of_a_hundred_thousand_tokens_pools_to_its_value(mode):
    """Whole numbers of 32 bits do not hold the sum of 1 to 100,000."""
    x = torch.full((100_000, 1), 0.5)
    expected = 0.5 * 100_000**0.5 if mode == "mean_sqrt_len_tokens" else 0.5
    found = pool(x, torch.tensor([0, 100_000], dtype=torch.int32), mode)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_an_unknown_pooling_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigError, match="unknown pooling 'min'; there are: cls, mean, max"):
        pool(torch.zeros(2, 1), torch.tensor([0, 2]), "min")
