"""What the shell let through is what the config holds, without a word of Hydra's grammar."""

from __future__ import annotations

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from diffusion_art.config import build, literal, plain
from diffusion_art.errors import UserError
from diffusion_art.hydra_errors import groups
from diffusion_art.overrides import understood

ODD = st.characters(codec="utf-8") | st.sampled_from(list("\\\\$${}[](),'\"~=: #"))
TEXTS = st.text(ODD, min_size=1, max_size=40).filter(lambda text: text.strip() not in ("", "null", "???"))
QUICK = settings(deadline=None, database=None, max_examples=40)


def read(*words: str):
    """The values that Hydra and OmegaConf make of arguments, by key; `name` is there to be interpolated."""
    config = OmegaConf.create({"name": "tiny"})
    for override in OverridesParser.create().parse_overrides(understood(words, groups=groups())):
        OmegaConf.update(config, override.get_key_element().lstrip("+"), override.value(), force_add=True)
    return plain(config)


def value(word: str):
    found = read(word)
    for part in word.partition("=")[0].lstrip("+").split("."):
        found = found[part]
    return found


SAID = [
    *("My Pictures (2)", "Été 1900", "Tom's", "a=b", "lr=0.1", "blurry, bad quality", 'a "quoted" word', "a#b; c!"),
    *("[2020] Paris", "{artist}", "{title} ({date})", "1_000", "2024", "1e3", "true", "back\\slash\\", "50 %", "a: b"),
    *("*", "costs $5", "&c", "a|b", "<i>", "line\none", "range(1,5)", "choice(a,b)", "-1", "?", "é,è", "'tis"),
]
KEYS = [
    *("source.path", "out", "ckpt_path", "caption_template", "path", "data.caption_template", "paths.data_dir", "name"),
    *("callbacks.samples.folder", "model.text_encoder.pretrained", "+logger.wandb.name", "guide", "real"),
    *("teacher.run", "checkpoint", "tls.certificate", "prompts", "token", "callbacks.samples.prompts"),
]


@pytest.mark.parametrize("text", SAID)
@pytest.mark.parametrize("key", ["data.path", "run", "negative_prompt"])
def test_texts_and_paths_are_taken_as_they_are(key, text):
    assert value(f"{key}={text}") == text


@pytest.mark.parametrize("key", KEYS)
def test_so_are_those_of_every_command_and_section(key):
    for text in ("It's (2), é = 1", "1e3", "{artist}", "a red house, a blue house", "Monet's garden"):
        assert value(f"{key}={text}") == text


@pytest.mark.parametrize("text", ["it's", "a (b)", "Été", "x=y, z"])
def test_of_other_keys_what_hydra_cannot_read(text):
    if "," not in text:
        assert value(f"+anything.else={text}") == text
    assert value(f"+logger.wandb.notes={text}") == text


@QUICK
@given(TEXTS)
def test_any_text(text):
    if text.strip()[0] not in "'\"[":
        assert value(f"prompts={text}") == text
        assert value(f"negative_prompt={text}") == text
        if "${" not in text and not text.startswith("~"):
            assert value(f"run={text}") == text
    for key in ("prompts", "run", "data.path", "foo"):
        for words in ([f"{key}={text}"], ["-m", f"{key}={text}"]):
            OverridesParser.create().parse_override(understood(words)[-1])


@QUICK
@given(st.lists(TEXTS.filter(lambda text: text.strip() == text), min_size=1, max_size=4))
def test_lists_in_double_quotes(texts):
    escaped = [text.replace("\\", "") for text in texts]
    inside = ", ".join('"' + text.replace('"', '\\"') + '"' for text in escaped)
    assert value(f"prompts=[{inside}]") == escaped


def test_lists_without_quotes():
    assert value("prompts=[Monet's garden, it's = 5, Sunrise (1872, Paris)]") == [
        "Monet's garden",
        "it's = 5",
        "Sunrise (1872, Paris)",
    ]
    assert value("prompts=[1889, {artist}]") == ["1889", "{artist}"]
    assert value('prompts=["costs $5 ${name}", red]') == ["costs $5 ${name}", "red"]
    assert value("prompts=[an open (bracket, red]") == ["an open (bracket", "red"]
    assert value("prompts=[]") == []
    assert value("callbacks.samples.prompts=[a red house, Tom's]") == ["a red house", "Tom's"]


def test_what_was_quoted_for_hydra_still_means_the_same():
    assert value("""data.path="My Pictures (2)\"""") == "My Pictures (2)"
    assert value("run='1e3'") == "1e3"
    mixed = value("data.path=[{path: data/a, weight: 0.8}, {path: data/b, weight: 0.2}]")
    assert mixed == [{"path": "data/a", "weight": 0.8}, {"path": "data/b", "weight": 0.2}]
    assert value("ckpt_path=null") is None
    assert value("data.url=[ws://a:8000/ws, ws://b:8000/ws]") == ["ws://a:8000/ws", "ws://b:8000/ws"]
    assert value("trainer.max_steps=12") == 12
    assert understood(
        ["data=painter", "model/schedule=flow", "~callbacks.report", "--cfg", "job"], groups=groups()
    ) == [*("data=painter", "model/schedule=flow", "~callbacks.report", "--cfg", "job")]


def test_names_interpolate_and_prompts_do_not():
    assert value("out=${name}/of (mine)") == "tiny/of (mine)"
    assert value("negative_prompt=${name}") == "${name}"
    assert value("run=a ${ b") == "a ${ b"


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for key in ("run", "out", "ckpt_path", "data.path", "source.path", "path"):
        assert value(f"{key}=~/my pics") == f"{tmp_path}/my pics"
        assert value(f"{key}='~/pics'") == f"{tmp_path}/pics"
    mixed = value("data.path=[{path: ~/a b, weight: 1}, {path: Tom's, weight: 2}]")
    assert mixed == [{"path": f"{tmp_path}/a b", "weight": 1}, {"path": "Tom's", "weight": 2}]
    assert value("prompts=~ a tilde") == "~ a tilde"


def test_a_folder_named_like_a_list_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[photos]").mkdir()
    assert value("data.path=[photos]") == "[photos]"
    assert value("data.path=[elsewhere]") == ["elsewhere"]


def sweep(word: str) -> list[str]:
    override = OverridesParser.create().parse_override(understood(["-m", word])[1])
    assert override.is_sweep_override()
    return [OverridesParser.create().parse_override(f"x={each}").value() for each in override.sweep_string_iterator()]


def test_a_comma_separates_the_values_of_a_sweep_and_of_nothing_else():
    assert sweep("optim.lr=1e-3,1e-4") == [1e-3, 1e-4]
    assert sweep("negative_prompt=blurry (very),it's dark") == ["blurry (very)", "it's dark"]
    assert sweep("run=1e3,b=c") == ["1e3", "b=c"]
    assert sweep("prompts=[a, b],[c, (d, e)]") == [["a", "b"], ["c", "(d, e)"]]
    assert sweep("run=choice(a,b)") == ["a", "b"]
    assert understood(["-m", "run=one (1)"])[1] == "run='one (1)'"


@given(st.text(st.sampled_from(list("\\\\$${}a "))).filter(lambda text: text != "???"))
@settings(deadline=None, database=None, max_examples=400)
def test_literal_text_is_read_back(text):
    assert OmegaConf.create({"text": literal(text)}).text == text


def test_what_is_built_gets_the_text(tmp_path):
    (tmp_path / "0.png").touch()
    for text in ("costs ${name}", "a \\\\${b} \\\\", "${", "\\$", "\\${x}"):
        node = {"_target_": "diffusion_art.sources.folder.folder.ImageFolder", "path": str(tmp_path), "name": text}
        assert build(node).name == text
        config = OmegaConf.create({"text": literal(text), "source": {**node, "name": "${text}"}})
        assert build(config.source).name == text


def test_quotes_keep_the_commas_of_a_sweeps_values():
    assert sweep("""run="a, b",c""") == ["a, b", "c"]


@pytest.mark.parametrize("word", ["data.path=", "run= ", "out=", "source.path=", "teacher.ckpt_path="])
def test_an_empty_path_is_refused_and_an_empty_text_is_one(word):
    with pytest.raises(UserError, match=re.escape(f"`{word.strip()}` has no value")):
        understood([word])
    texts = ["negative_prompt=", "prompts=", "caption_template=", "path=null"]
    assert understood(texts) == texts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["Été 1900"], "`Été 1900` is no key=value. Write its key before it, as in 'path=Été 1900'; `--help` shows"),
        (
            ["path=My", "Pictures"],
            "as in path=Pictures; or, if it belongs to what stands before it, put both",
        ),
    ],
)
def test_a_word_without_a_key_is_refused(words, said):
    with pytest.raises(UserError, match=re.escape(said)):
        understood(words)
    assert understood(["-m", "~trainer.profiler", "--cfg", "job"]) == ["-m", "~trainer.profiler", "--cfg", "job"]
