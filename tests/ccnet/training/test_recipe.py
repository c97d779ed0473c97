"""The learning rate of a recipe."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ccnet.contract import CCNetError
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


def test_values_leave_out_what_version_0_1_0_had_not_unless_it_is_used() -> None:
    assert not {"rmse_weight", "average"} & Recipe().to_dict().keys()
    assert Recipe(rmse_weight=2, average=0.99).to_dict() == Recipe().to_dict() | {"rmse_weight": 2, "average": 0.99}


@pytest.mark.parametrize("values", [{"rmse_weight": -1}, {"average": 1}, {"average": -0.1}])
def test_impossible_weights_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(CCNetError, match="expected at least 0, and 0 to below 1"):
        Recipe(**values)  # type: ignore[arg-type]
