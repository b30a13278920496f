"""Modules are found by the names that they had in the version before."""

import importlib
import importlib.util
import pickle
import sys

import pytest

from latentplan.common.renamed_modules import RENAMED


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_an_old_name_gives_the_same_objects_with_a_notice(old):
    renamed = RENAMED[old]
    with pytest.warns(DeprecationWarning, match=f"is {renamed.module} now"):
        module = importlib.import_module(old)
    new = importlib.import_module(renamed.module)
    own = [name for name in vars(new) if not name.startswith("_")]
    assert own
    assert all(getattr(module, name) is getattr(new, name) for name in own)
    for was, name in renamed.names.items():
        assert getattr(module, was) is getattr(new, name)


def test_no_old_name_is_a_module_of_its_own():
    for old in RENAMED:
        assert importlib.util.find_spec(old).origin is None


def test_what_was_pickled_under_an_old_name_is_found():
    text = b"clatentplan.rollout.sampling\nSampling\n."
    sys.modules.pop("latentplan.rollout.sampling", None)
    with pytest.warns(DeprecationWarning, match="latentplan.modeling.sampling now"):
        found = pickle.loads(text)
    assert found.__module__ == "latentplan.modeling.sampling"
