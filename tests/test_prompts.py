from __future__ import annotations

import pytest

from diffusion_art.config import config_dir
from diffusion_art.errors import UserError
from diffusion_art.prompts import LISTS, read_prompts


def test_a_file_holds_a_prompt_on_each_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("# mine\n\n  Édouard Manet / Été  \ncosts ${name}, (2)\n#\nlast")
    assert read_prompts("prompts.txt") == ["Édouard Manet / Été", "costs ${name}, (2)", "last"]
    (tmp_path / "my list").write_text("red\n")
    assert read_prompts(str(tmp_path / "my list")) == ["red"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_files_of_other_encodings(tmp_path, encoding):
    (tmp_path / "p.txt").write_bytes("Édouard\r\nça\r\n".encode(encoding))
    assert read_prompts(str(tmp_path / "p.txt")) == ["Édouard", "ça"]


def test_no_byte_becomes_a_replacement_character(tmp_path):
    (tmp_path / "p.txt").write_bytes("Édouard \x81".encode("latin-1"))
    assert read_prompts(str(tmp_path / "p.txt")) == ["Édouard \x81"]


def test_what_is_no_file_is_a_prompt():
    assert read_prompts("a red house") == ["a red house"]
    assert read_prompts("x" * 5000) == ["x" * 5000]
    assert read_prompts(1889) == ["1889"]
    assert read_prompts(["a", 3]) == ["a", "3"]


def test_a_missing_or_empty_file(tmp_path):
    with pytest.raises(UserError, match=r"there is no file prompts\.txt"):
        read_prompts("prompts.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    with pytest.raises(UserError, match="holds no prompt"):
        read_prompts(str(tmp_path / "empty.txt"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("PartiPrompts.tsv", 'Prompt\tCategory\tNote\na fox\tAnimals\t\n"a ""red"" cat, sitting"\tAnimals\tx\n'),
        ("DrawBench.csv", 'Prompts,Category\na fox,Colors\n"a ""red"" cat, sitting",Positional\n'),
        ("geneval.jsonl", '{"tag": "x", "prompt": "a fox"}\n{"include": [1], "prompt": "a \\"red\\" cat, sitting"}\n'),
        ("one.json", '{"prompts": ["a fox", "a \\"red\\" cat, sitting"]}'),
        ("list.json", '["a fox", "", "a \\"red\\" cat, sitting"]'),
        ("captions.json", '[{"text": "no", "prompt": "a fox"}, {"caption": "a \\"red\\" cat, sitting"}]'),
        (
            "coco.json",
            '{"images": [{"id": 1}, {"id": 2}], "annotations": [{"image_id": 1, "caption": "a fox"}, '
            '{"image_id": 2, "caption": "a \\"red\\" cat, sitting"}, {"image_id": 2, "caption": "another"}]}',
        ),
    ],
)
def test_a_table_holds_a_prompt_in_each_row(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_prompts(str(tmp_path / name)) == ["a fox", 'a "red" cat, sitting']


@pytest.mark.parametrize("text", ['prompt\n"a fox, red"\na cat\n', "Caption\na fox, red\na cat\n"])
def test_commas_below_a_lone_column_are_of_its_prompts(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    assert read_prompts(str(tmp_path / "a.csv")) == ["a fox, red", "a cat"]


def test_tables_and_folders_that_hold_no_prompts(tmp_path):
    (tmp_path / "a.csv").write_text("width,height\n1,2\n")
    with pytest.raises(UserError, match=r"a\.csv has no column of prompts among width, height"):
        read_prompts(str(tmp_path / "a.csv"))
    with pytest.raises(UserError, match=r"there is no file nothere\.csv"):
        read_prompts("nothere.csv")
    with pytest.raises(UserError, match="is a folder"):
        read_prompts(str(tmp_path))
    for nothing in ("", " "):
        with pytest.raises(UserError, match="prompts= is empty"):
            read_prompts(nothing)
    assert read_prompts([""]) == [""]


def test_options_in_a_file_of_prompts_are_not_painted(tmp_path):
    (tmp_path / "p.txt").write_text('a fox\n--prompt "a cat" --negative_prompt "dark" --seed 5\n')
    with pytest.raises(UserError, match=r'options in its lines, as in --prompt "a cat" .* negative_prompt='):
        read_prompts(str(tmp_path / "p.txt"))


@pytest.mark.parametrize(
    ("prompt", "mark"),
    [
        ("a (red:1.4) house", "(red:1.4)"),
        ("by __artist__", "__artist__"),
        ("a {red|blue} house", "{red|blue}"),
        ("a house <lora:x:1>", "<lora:x:1>"),
        ("a [red:blue:0.5] house", "[red:blue:0.5]"),
        ("a house BREAK a tree", "BREAK"),
        ("a house --n low quality --w 512 --s 20", "--n low quality"),
        ("a house, oil painting --ar 16:9 --v 5", "--ar 16:9"),
        *[(plain, "") for plain in ("Sunrise (1872)", "a clock (at 12:30)", "costs ${name}", "{style} / __", "[a, b]")],
        ("red -- a house --", ""),
    ],
)
def test_marks_of_other_programs_are_told_of(prompt, mark, caplog):
    assert read_prompts([prompt]) == [prompt]
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == (
        [f"prompts hold marks such as {mark}".partition(": ")[0]] if mark else []
    )


@pytest.mark.parametrize("name", sorted(file.stem for file in (config_dir() / LISTS).glob("*.txt")))
def test_every_list_that_ships_holds_different_texts(name):
    prompts = read_prompts(name)
    assert len(set(prompts)) == len(prompts) >= 8
    assert not any(prompt.startswith("-") for prompt in prompts)


def test_null_in_a_list_is_no_caption():
    assert read_prompts(["red", None, 1]) == ["red", "", "1"]


def test_prompts_with_names_are_refused():
    with pytest.raises(UserError, match=r"has names: give texts alone, as prompts=\[A,B\]"):
        read_prompts({"a": 1})
