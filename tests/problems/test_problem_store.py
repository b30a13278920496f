"""Problems on disk behave like a list, and the cache holds what is whole and nothing else."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.problems import disk_cache as cache_module
from latentplan.problems.disk_cache import Cache, cache_root, manifest_of
from latentplan.problems.fingerprint import fingerprint, question_keys
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.problem_store import Found, ProblemStore, SelectedProblems, write_problems

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
chains = st.lists(texts, max_size=3).map(tuple)
any_problems = st.lists(
    st.builds(
        Problem,
        texts,
        chains,
        texts,
        st.none() | st.lists(chains, max_size=2).map(tuple),
        st.none() | st.integers(2, 99),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def store_of(tmp_path_factory):
    def build(problems) -> ProblemStore:
        cache = Cache(tmp_path_factory.mktemp("cache"))
        found = [Found(problem, 0, 10 + line) for line, problem in enumerate(problems)]
        return ProblemStore(cache.make("store", lambda folder: write_problems(folder, found, ["a.jsonl"])))

    return build


@settings(max_examples=50, deadline=None)
@given(problems=any_problems)
def test_a_store_gives_back_any_problems(problems, store_of):
    store = store_of(problems)
    assert list(store) == problems
    assert (store[-1], store[1:3], len(store)) == (problems[-1], problems[1:3], len(problems))
    assert store.fingerprint == fingerprint(store) == fingerprint(problems)
    assert store.moduli == {problem.modulus for problem in problems}
    assert question_keys(store).tolist() == question_keys(problems).tolist()
    assert store.place(len(problems) - 1) == f"a.jsonl:{9 + len(problems)}"
    assert list(pickle.loads(pickle.dumps(store))) == problems


def test_a_selection_keeps_its_order_and_its_fingerprint(clock_problems, store_of):
    chosen = [5, 2, 9]
    selected = SelectedProblems(store_of(clock_problems), np.array(chosen))
    expected = [clock_problems[place] for place in chosen]
    assert list(selected) == expected
    assert selected[0:2] == expected[:2]
    assert fingerprint(selected) == fingerprint(expected)
    assert question_keys(selected).tolist() == question_keys(expected).tolist()
    with pytest.raises(IndexError, match="no item 3 among 3"):
        selected[3]


def write_one(folder):
    (folder / "data.bin").write_bytes(b"12345")
    return {"answer": 42}


def test_an_entry_is_built_once(tmp_path):
    cache, built = Cache(tmp_path), []

    def write(folder):
        built.append(folder)
        return write_one(folder)

    first, second = cache.make("entry", write), cache.make("entry", write)
    assert (first, len(built)) == (second, 1)
    assert manifest_of(first)["answer"] == 42
    assert sorted(path.name for path in tmp_path.iterdir()) == [".entry.lock", "entry"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "data.bin").write_bytes(b"123"),
        lambda entry: (entry / "data.bin").unlink(),
        lambda entry: (entry / "manifest.json").unlink(),
        lambda entry: (entry / "manifest.json").write_text("{"),
        lambda entry: (entry / "manifest.json").write_text("[]"),
        lambda entry: (entry / "manifest.json").write_text(
            json.dumps({**manifest_of(entry), "format_version": 0})
        ),
        lambda entry: (entry / "manifest.json").write_text(
            json.dumps({**manifest_of(entry), "name": "other"})
        ),
    ],
    ids=["torn", "gone", "no_manifest", "half_a_manifest", "no_mapping", "other_version", "other_name"],
)
def test_a_torn_or_foreign_entry_is_built_again(damage, tmp_path):
    cache = Cache(tmp_path)
    damage(cache.make("entry", write_one))
    assert cache.find("entry") is None
    again = cache.make("entry", write_one)
    assert cache.find("entry") == again
    assert (again / "data.bin").read_bytes() == b"12345"


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(folder):
        write_one(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).make("entry", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".entry.lock"]


def build_slowly(root, started):
    def write(folder):
        (folder / "data.bin").write_bytes(b"123")
        started.set()
        time.sleep(60)
        return {}

    Cache(root).make("entry", write)


def test_a_build_that_is_killed_leaves_a_usable_cache(tmp_path, monkeypatch):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=build_slowly, args=(tmp_path, started))
    process.start()
    assert started.wait(10)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (leftover,) = tmp_path.glob(".entry.*/")
    cache = Cache(tmp_path)
    assert cache.find("entry") is None
    assert (cache.make("entry", write_one) / "data.bin").read_bytes() == b"12345"
    assert leftover.exists()  # it might belong to another machine
    monkeypatch.setattr(cache_module, "_ABANDONED_AFTER", -1.0)
    cache.make_named("entry", write_one, lambda details: "named")
    assert not leftover.exists()


def build_and_count(root, counter, folders):
    def write(folder):
        with counter.get_lock():
            counter.value += 1
        time.sleep(0.1)
        return write_one(folder)

    folders.put(str(Cache(root).make("entry", write)))


def test_of_several_processes_one_builds(tmp_path):
    context = multiprocessing.get_context("fork")
    counter, folders = context.Value("i", 0), context.SimpleQueue()
    processes = [context.Process(target=build_and_count, args=(tmp_path, counter, folders)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert counter.value == 1
    assert {folders.get() for _ in processes} == {str(tmp_path / "entry")}


def test_a_cache_that_cannot_be_written_names_the_way_out(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="dataset_cache_dir or LATENTPLAN_CACHE"):
        Cache(tmp_path / "file" / "cache").make("entry", write_one)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("LATENTPLAN_CACHE", raising=False)
    assert cache_root().parts[-2:] == (".cache", "latentplan")
    monkeypatch.setenv("LATENTPLAN_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    assert cache_root("elsewhere").name == "elsewhere"
