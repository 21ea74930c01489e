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


@pytest.mark.parametrize("name", sorted(file.stem for file in (config_dir() / LISTS).glob("*.txt")))
def test_every_list_that_ships_holds_different_texts(name):
    prompts = read_prompts(name)
    assert len(set(prompts)) == len(prompts) >= 8
    assert not any(prompt.startswith("-") for prompt in prompts)


def test_prompts_with_names_are_refused():
    with pytest.raises(UserError, match=r"has names: give texts alone, as prompts=\[A,B\]"):
        read_prompts({"a": 1})
