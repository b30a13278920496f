import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.evaluation.statistics import mcnemar, mean_interval, pass_at_k, wilson_interval


def test_wilson_by_hand():
    # z = 1.959964, z² = 3.841459: centre (90 + 1.920729)/103.841459 = 0.885203,
    # margin 1.959964/103.841459 · √(100·0.9·0.1 + 0.960365) = 0.018875·3.156005 = 0.059568.
    interval = wilson_interval(90, 100)
    assert interval == pytest.approx((0.9, 0.825635, 0.944771), abs=1e-5)


def test_wilson_at_the_ends():
    # No success of n: low 0, high z²/(n + z²) = 3.841459/13.841459.
    assert wilson_interval(0, 10) == pytest.approx((0, 0, 0.277533), abs=1e-5)
    assert wilson_interval(10, 10) == pytest.approx((1, 1 - 0.277533, 1), abs=1e-5)


@pytest.mark.parametrize(
    ("successes", "total", "confidence"), [(1, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1), (1, 2, 0)]
)
def test_wilson_rejects(successes, total, confidence):
    with pytest.raises(ValueError, match=r"proportion|confidence"):
        wilson_interval(successes, total, confidence)


@settings(deadline=None)
@given(st.integers(1, 5000), st.data())
def test_wilson_holds_the_estimate_and_narrows_with_more_data(total, data):
    successes = data.draw(st.integers(0, total))
    interval = wilson_interval(successes, total)
    assert 0 <= interval.low <= interval.estimate + 1e-12
    assert interval.estimate - 1e-12 <= interval.high <= 1
    wider = wilson_interval(successes, total, 0.99)
    narrower = wilson_interval(4 * successes, 4 * total)
    width = interval.high - interval.low
    assert wider.high - wider.low > width > narrower.high - narrower.low


def test_mean_interval_by_hand():
    # s = 0.02, t(0.975, 2) = 4.302653: margin 4.302653·0.02/√3 = 0.049683.
    assert mean_interval([0.90, 0.92, 0.94]) == pytest.approx((0.92, 0.870317, 0.969683), abs=1e-6)


@pytest.mark.parametrize(
    ("n", "confidence", "t"),
    [(2, 0.95, 12.7062), (3, 0.95, 4.30265), (4, 0.95, 3.18245), (6, 0.95, 2.57058), (11, 0.99, 3.16927)],
)
def test_mean_interval_uses_the_tables_of_student(n, confidence, t):
    values = [0.0] * (n - 1) + [1.0]
    mean, variance = 1 / n, (1 / n) * (1 - 1 / n) * n / (n - 1)
    interval = mean_interval(values, confidence)
    assert interval.high - mean == pytest.approx(t * math.sqrt(variance / n), rel=1e-5)
    assert interval.low + interval.high == pytest.approx(2 * mean)


def test_mean_interval_of_one_and_of_no_value():
    single = mean_interval([0.5])
    assert single.estimate == 0.5
    assert math.isnan(single.low)
    assert math.isnan(single.high)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_mcnemar_by_hand():
    # Ten problems tell the two apart, 2 to 8: p = 2·(C(10,0) + C(10,1) + C(10,2))/2¹⁰ = 2·56/1024.
    correct_a = [True] * 2 + [False] * 8 + [True] * 50
    correct_b = [False] * 2 + [True] * 8 + [True] * 50
    result = mcnemar(correct_a, correct_b)
    assert (result.only_a, result.only_b) == (2, 8)
    assert result.p_value == 112 / 1024
    assert mcnemar(correct_b, correct_a).p_value == result.p_value


def test_mcnemar_of_models_that_never_differ():
    assert mcnemar([True, False], [True, False]) == (0, 0, 1.0)
    assert mcnemar([True, False], [False, True]).p_value == 1.0
    with pytest.raises(ValueError, match="not the same problems"):
        mcnemar([True], [True, False])


def test_mcnemar_of_many_problems_does_not_overflow():
    assert mcnemar([True] * 3000, [False] * 3000).p_value == 0.0


def test_pass_at_k_by_hand():
    # 1 − C(12, 8)/C(16, 8) = 1 − 495/12870.
    assert pass_at_k(16, 4, 8) == pytest.approx(1 - 495 / 12870)
    assert pass_at_k(5, 2, 1) == pytest.approx(2 / 5)
    assert pass_at_k(5, 0, 5) == 0
    assert pass_at_k(5, 1, 5) == 1


@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_pass_at_k_is_the_mean_over_subsets(num_samples, data):
    num_correct = data.draw(st.integers(0, num_samples))
    k = data.draw(st.integers(1, num_samples))
    # Drawn one after another, k samples are all wrong with probability Π (n − c − i)/(n − i).
    all_wrong = math.prod(max(num_samples - num_correct - i, 0) / (num_samples - i) for i in range(k))
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(1 - all_wrong)


@pytest.mark.parametrize(("num_samples", "num_correct", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_rejects(num_samples, num_correct, k):
    with pytest.raises(ValueError, match="cannot be estimated"):
        pass_at_k(num_samples, num_correct, k)
