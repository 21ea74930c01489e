from __future__ import annotations

import logging
import pickle

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_art.errors import UserError
from diffusion_art.models.tokenizer import BytePairEncoding, ClipTokenizer, clean

CAPTIONS = ["Piet Mondrian / Composition in Red and Blue", "", "Größe → 漢字 !!!", "a"]
CLIP, THEIRS = BytePairEncoding(), open_clip.SimpleTokenizer()


def test_with_the_whole_vocabulary_it_is_clips_own():
    ours = ClipTokenizer(context_length=77)
    ids, mask = ours(CAPTIONS)
    theirs = open_clip.get_tokenizer("ViT-B-32")(CAPTIONS)
    assert torch.equal(ids, theirs[:, : ids.shape[1]])
    assert not theirs[:, ids.shape[1] :].any()
    assert (mask.sum(1) == theirs.argmax(1) + 1).all()  # up to the end of text, the highest id


WORDS = st.sampled_from(
    ["don't", "ABBA", "banana", "1921", "l'été", "&amp;amp;", "<end_of_text>", "naÃ¯ve", "aaaa", "…!?", " "]
)


@settings(deadline=None, database=None, max_examples=200)
@given(text=st.lists(st.text(max_size=12) | WORDS, max_size=6).map(" ".join))
def test_whatever_is_written_it_is_read_as_clip_reads_it(text):
    assert CLIP.encode(text) == THEIRS.encode(text)


def test_a_small_vocabulary_knows_every_caption():
    small = ClipTokenizer(context_length=64, vocab_size=600)
    for caption in CAPTIONS:
        ids = small.ids(caption)
        assert max(ids) < 600
        assert ids[0] == 598
        assert ids[-1] == 599
        assert THEIRS.decode(ids[1:-1]).strip() == clean(caption)  # the first ids are those of the whole vocabulary


def test_vocabularies_do_not_disturb_each_other():
    alone = ClipTokenizer(context_length=77).ids("mondrian")
    ClipTokenizer(context_length=77, vocab_size=514).ids("mondrian")
    assert ClipTokenizer(context_length=77).ids("mondrian") == alone


@pytest.mark.parametrize("vocab_size", [0, 513, 49409])
def test_an_impossible_vocabulary_is_refused_with_its_limits(vocab_size):
    with pytest.raises(UserError, match=rf"vocab_size={vocab_size}.*514 to 49408"):
        ClipTokenizer(context_length=8, vocab_size=vocab_size)


def test_rows_are_padded_to_a_multiple_of_8_within_the_context():
    tokenizer = ClipTokenizer(context_length=20)
    assert tokenizer(["a"])[0].shape == (1, 8)
    assert tokenizer(["a b c d e f g"])[0].shape == (1, 16)
    assert tokenizer(["a " * 17])[0].shape == (1, 20)


def test_a_long_caption_is_cut_counted_once_and_reported(caplog):
    tokenizer = ClipTokenizer(context_length=16)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            ids, mask = tokenizer(["x " * 5000, "short"])
    assert ids.shape == (2, 16)
    assert mask[0].all()
    assert ids[0, -1] == tokenizer.bpe.end_id
    assert tokenizer.truncated == 1
    assert len(caplog.records) == 1
    assert "5002 tokens of at most 16" in caplog.text
    assert "x x" not in caplog.text  # somebody's words are no business of a log


def test_reports_come_at_1_10_100(caplog):
    tokenizer = ClipTokenizer(context_length=8)
    with caplog.at_level(logging.WARNING):
        for number in range(25):
            tokenizer.ids(f"a b c d e f g h {number}")
    assert tokenizer.truncated == 25
    assert len(caplog.records) == 2


def test_an_encoding_goes_to_another_process_as_it_is():
    encoding = BytePairEncoding(700)
    again = pickle.loads(pickle.dumps(encoding))
    assert again.encode("a quiet harbour") == encoding.encode("a quiet harbour")
