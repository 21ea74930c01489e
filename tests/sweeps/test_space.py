"""Hydra's words for several values as a search space."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from diffusion_art.errors import UserError
from diffusion_art.sweeps.space import examples, overrides_of, size, split


def spaces(*words: str):
    return split(OverridesParser.create().parse_overrides(list(words)))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("x=interval(0,1)", FloatDistribution(0.0, 1.0)),
        ("x=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("x=int(interval(2,9))", IntDistribution(2, 8)),
        ("x=int(interval(2,8.5))", IntDistribution(2, 7)),
        ("x=tag(int,log,interval(1,65))", IntDistribution(1, 64, log=True)),
        ("x=range(16,65,16)", IntDistribution(16, 64, step=16)),
        ("x=range(10,0,-3)", IntDistribution(1, 10, step=3)),
        ("x=range(0,1,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("x=choice(a,b)", CategoricalDistribution(["a", "b"])),
        ("x=3,1,2", CategoricalDistribution([3, 1, 2])),
        ("x=true,null,'a b',[1,2]", CategoricalDistribution([True, "null", "'a b'", "[1,2]"])),
    ],
)
def test_a_space_is_what_a_multirun_would_try(word, expected):
    space, fixed = spaces(word)
    assert space == {"x": expected}
    assert fixed == []


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("x=tag(log,interval(0,1))", "begins at 0"),
        ("x=interval(2,2)", "from 2 to 2 is empty"),
        ("x=int(interval(3,3))", "no whole number"),
        ("x=range(3,3)", "the range is empty"),
    ],
)
def test_a_space_that_cannot_be_searched_is_one_sentence(word, says):
    with pytest.raises(UserError, match=says) as raised:
        spaces(word)
    assert f"`{word}`" in str(raised.value)


def test_what_is_fixed_stays_and_the_last_word_on_a_key_counts():
    space, fixed = spaces("+experiment=a", "x=1,2", "lr=1e-3", "x=7", "~logger", "lr=interval(0,1)", "name='a, b'")
    assert list(space) == ["lr"]
    assert fixed == ["+experiment=a", "x=7", "~logger", "name='a, b'"]


def test_values_come_back_from_hydras_grammar_as_they_were():
    words = overrides_of({"a": 0.1 + 0.2, "b": 7, "c": True, "d": "'a b'", "e": "null", "f": 1e-5, "g": "flow"})
    back = {each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides(words)}
    assert back == {"a": 0.1 + 0.2, "b": 7, "c": True, "d": "a b", "e": None, "f": 1e-5, "g": "flow"}


def test_sizes_and_examples():
    space, _ = spaces("a=choice(x,y,z)", "b=range(0,4)", "c=range(0,1,0.5)")
    assert size(space) == 3 * 4 * 2
    assert [each["a"] for each in examples(space)] == ["x", "y", "z"]
    assert size(spaces("a=1,2", "b=interval(0,1)")[0]) is None
