"""Settings by the names that they had in the version before."""

import pytest

from latentplan.common.renamed_settings import renamed_settings


def test_a_record_of_a_run_is_read_by_present_names_without_a_notice(caplog):
    saved = {"seed": 3, "estimator": "value", "value_learning_rate": 1e-4, "likelihood_weight": 0.0}
    assert renamed_settings(saved) == {
        "seed": 3,
        "objective": "latent_value",
        "latent_gradient": "pathwise",
        "value_learning_rate": 1e-4,
    }
    assert renamed_settings({**saved, "estimator": "pathwise"}) == {
        "seed": 3,
        "objective": "grpo",
        "latent_gradient": "pathwise",
        "likelihood_weight": 0.0,
    }
    assert renamed_settings({"estimator": ["broken"]}) == {"estimator": ["broken"]}
    assert not caplog.text


def test_a_present_name_goes_before_an_old_one():
    found = renamed_settings({"latent_gradient": "none", "estimator": "pathwise"})
    assert found == {"objective": "grpo", "latent_gradient": "none"}


def test_what_has_no_old_name_stays_as_it_is():
    settings = {"likelihood_weight": 0.0, "value_learning_rate": 1e-4}
    assert renamed_settings(settings) == settings


def test_a_user_is_told_once_and_where(caplog):
    for _ in range(2):
        renamed_settings({"estimator": "answers"}, where="mine.yaml")
    assert (
        caplog.text.count("mine.yaml: estimator: answers is objective: grpo, latent_gradient: none now") == 1
    )
    with pytest.raises(ValueError, match=r"mine\.yaml: estimator must be one of \['answers'.*, got 'guess'"):
        renamed_settings({"estimator": "guess"}, where="mine.yaml")
