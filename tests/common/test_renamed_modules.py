"""Modules are found by the names that they had in the version before."""

import importlib
import importlib.util
import pickle
import sys

import pytest

from latentplan.common.renamed_modules import _MOVED, RENAMED


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_an_old_name_gives_the_same_objects_with_a_notice(old):
    sys.modules.pop(old, None)  # a package is there once one of its parts has been imported
    with pytest.warns(DeprecationWarning, match=f"{old} is {RENAMED[old]} now"):
        module = importlib.import_module(old)
    new = importlib.import_module(RENAMED[old])
    own = [name for name in vars(new) if not name.startswith("_")]
    assert own or new.__path__
    assert all(getattr(module, name) is getattr(new, name) for name in own)


@pytest.mark.parametrize(("old", "name"), [(old, name) for old, names in _MOVED.items() for name in names])
def test_a_name_that_moved_on_is_found_where_it_was(old, name):
    home, _, attribute = _MOVED[old][name].partition(":")
    found = getattr(importlib.import_module(f"latentplan.{old}"), name)
    assert found is getattr(importlib.import_module(f"latentplan.{home}"), attribute)


def test_no_old_name_is_a_module_of_its_own():
    for old in RENAMED:
        assert importlib.util.find_spec(old).origin is None, old


def test_what_was_pickled_under_an_old_name_is_found():
    text = b"clatentplan.rollout.sampling\nSampling\n."
    sys.modules.pop("latentplan.rollout.sampling", None)
    with pytest.warns(DeprecationWarning, match="latentplan.modeling.sampling now"):
        found = pickle.loads(text)
    assert found.__module__ == "latentplan.modeling.sampling"


def test_a_name_that_left_a_module_that_stays_is_found_there():
    from latentplan.problems import benchmarks, sources

    with pytest.warns(DeprecationWarning, match="problems.sources.load_benchmark now"):
        assert benchmarks.load_benchmark is sources.load_benchmark
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        benchmarks.other  # noqa: B018
