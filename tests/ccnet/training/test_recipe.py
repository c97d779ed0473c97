"""The learning rate of a recipe."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ccnet.training.recipe import Recipe


def test_learning_rate_warms_up_and_decays_as_a_cosine() -> None:
    recipe = Recipe(steps=110, warmup=10, lr=4e-4, final_lr=1e-5)
    rates = [recipe.lr_at(step) for step in range(recipe.steps + 1)]
    assert rates[:10] == pytest.approx([4e-5 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(4e-4)
    assert rates[60] == pytest.approx((4e-4 + 1e-5) / 2)
    assert rates[110] == pytest.approx(1e-5)
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_first_step_without_warm_up_has_the_full_rate() -> None:
    assert Recipe().lr_at(0) == 4e-4
