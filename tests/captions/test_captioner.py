"""Clean columns, and templates whose empty fields leave no trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_art.captions.captioner import ART_TEMPLATE, Captioner, clean, default_template
from diffusion_art.errors import UserError

VAN_GOGH = {"artist": "Vincent van Gogh", "title": "The Starry Night", "date": "1889.0", "genre": "None"}


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (None, ""),
        ("None", ""),
        ("nan", ""),
        ("1968.0", "1968"),
        ("c.1502", "c.1502"),
        ("2.0", "2.0"),
        ("  Two\u00a0 \n spaces\t", "Two spaces"),
        ("Tom &amp; Jerry &#39;75", "Tom & Jerry '75"),
        ("R&B", "R&B"),
        ("AC/DC", "AC/DC"),
        ("Cafe\u0301", "Café"),
        ("a\x00b\x1b\ud800c\ufeff", "abc"),
        ("👩\u200d🎨 at work", "👩\u200d🎨 at work"),
        ("Nonesuch Palace", "Nonesuch Palace"),
        ("Artist / Untitled / None / abstract / 1968.0", "Artist / Untitled / abstract / 1968"),
        ("None /  / nan", ""),
        ("1889-01-01 00:00:00", "1889"),
        ("1889-01-01T00:00:00Z", "1889"),
        ("1889-01-01", "1889"),
        ("1889-06-02 00:00:00", "1889-06-02"),
        ("1889-06-02 17:30:00", "1889-06-02 17:30:00"),
        ("Unknown Artist / Sea", "Sea"),
        ("unknown_artist", ""),
        ("Unknown", "Unknown"),
    ],
)
def test_clean(raw: str | None, cleaned: str) -> None:
    assert clean(raw) == cleaned


@given(st.lists(st.sampled_from(["None", "1968.0", " / ", "/", " ", "e\u0301", "\0", "\ud800"]) | st.text()))
def test_what_is_clean_stays_as_it_is(pieces: list[str]) -> None:
    once = clean("".join(pieces).replace("&", ""))
    assert clean(once) == once
    assert once == " ".join(once.split())
    once.encode("utf-8")


def test_the_art_template_drops_empty_fields_with_their_separators() -> None:
    assert Captioner(ART_TEMPLATE)(VAN_GOGH) == "Vincent van Gogh / The Starry Night / 1889"


@pytest.mark.parametrize(
    ("columns", "caption"),
    [
        ({"artist": "A", "title": "T", "date": "1889"}, "by A: T (1889), oil"),
        ({"artist": "A", "title": "T"}, "by A: T, oil"),
        ({"title": "T", "date": "1889"}, "T (1889), oil"),
        ({"artist": "A", "date": "1889"}, "by A (1889), oil"),
    ],
)
def test_brackets_go_with_their_field(columns: dict[str, str], caption: str) -> None:
    assert Captioner("by {artist}: {title} ({date}), oil")(columns) == caption


@pytest.mark.parametrize(
    ("columns", "caption"),
    [
        ({"caption": "a  cat", "description": "no"}, "a cat"),
        ({"text": "a dog"}, "a dog"),
        (VAN_GOGH, "Vincent van Gogh / The Starry Night / 1889"),
        ({"description": "Artist / None / 1968.0"}, "Artist / 1968"),
        ({"width": "12"}, ""),
        ({"TEXT": "a cat", "URL": "x"}, "a cat"),
        ({"Title": "T", "Artist Display Name": "A"}, "A / T"),
        ({"edited_prompt": "a cat"}, "a cat"),
        ({"edited_prompt": "a cat", "original_prompt": "a dog"}, ""),  # two to choose from: the build asks
        ({"comment": "late", "title": "T"}, "T"),
        ({"label": "3", "folder": "cats"}, "cats"),
        ({"DESCRIPTION": "d", "label": "cat"}, "d"),
        ({"artist": "22", "style": "12", "genre": "4"}, ""),
        ({"artist": "22", "title": "1984", "date": "1948"}, "1984 / 1948"),
        ({"objectCreator[1]": "A", "objectTitle[1]": "T"}, "A / T"),
        (
            {"artistName": "A", "title": "T", "genre": "g", "style": "S", "completitionYear": "1872"},
            "A / T / S / g / 1872",
        ),
        ({"Dublin Core:Title": "T", "dcterms:creator": "A"}, "A / T"),
        ({"http://purl.org/dc/elements/1.1/title": "T", "http://purl.org/dc/terms/creator": "A"}, "A / T"),
        ({"artist": "b81caec7df4cd48ad5e9d3ce0ffb3ed1", "title": "T"}, "T"),
        ({"artist": "A", "style": "Cubism", "genre": "Cubism"}, "A / Cubism"),
        ({"subcategory": "gallery", "title": "T", "date": "2020-09-13 12:26:40"}, "T"),
        ({"Name": "Wave", "Artist": "Courbet"}, "Courbet / Wave"),
        ({"name": "x", "Object Title": "Wave", "artist": "Courbet"}, "Courbet / Wave"),
        ({"name": "Bo", "label": "cat"}, "cat"),
        ({"artistName": "Unknown", "title": "T", "year": "-"}, "T"),
    ],
)
def test_without_a_template_the_best_column_serves(columns: dict[str, str], caption: str) -> None:
    assert Captioner(None)(columns) == caption


def test_what_repeats_the_last_field_goes() -> None:
    assert Captioner(ART_TEMPLATE)({"artist": "A", "style": "Cubism", "genre": "Cubism", "date": "1914"}) == (
        "A / Cubism / 1914"
    )


def test_a_picture_without_any_field_of_the_template_falls_back() -> None:
    assert Captioner("{medium}")({"caption": "a cat"}) == "a cat"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{artist", "cannot be read"),
        ("no columns", "names no column"),
        ("{artist!r}", "no plain column name"),
        ("{artist.__class__}", "no plain column name"),
        ("{0}", "no plain column name"),
        ("{a[0]}", "no plain column name"),
        ("{artist} {medium}", r"asks for \{medium\}.*artist, title"),
    ],
)
def test_a_wrong_template_is_refused_with_its_mend(template: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Captioner(template, columns=("title", "artist"))


def test_a_template_may_name_columns_of_several_words() -> None:
    assert Captioner("{Artist Name} ({date-text})")({"Artist Name": "A", "date-text": "1889"}) == "A (1889)"
    assert Captioner("{Artist(s)}, {Dated}")({"Artist(s)": "A", "Dated": "1889"}) == "A, 1889"


def test_default_templates() -> None:
    assert default_template(["IMAGE_FILE", "DESCRIPTION", "AUTHOR", "TITLE", "DATE"]) == "{AUTHOR} / {TITLE} / {DATE}"
    assert default_template(["title", "date", "Author", "Dated"]) == "{Author} / {title} / {date}"
    assert default_template(["TEXT", "title", "artist"]) is None
    assert default_template(["title", "artist", "date", "genre", "style", "filename"]) == ART_TEMPLATE
    assert default_template(["Artist(s)", "Title (English)", "Date made"]) == (
        "{Artist(s)} / {Title (English)} / {Date made}"
    )
    assert default_template(["objectCreator[1]", "objectTitle[1]"]) is None  # which no template can name
    assert default_template(["style", "title"]) == "{title} / {style}"
    assert default_template(["title", "artist", "caption"]) is None
    assert default_template(["title"]) is None


@pytest.mark.parametrize(
    ("columns", "caption"),
    [
        ({"author": "Bob", "description": "a red boat"}, "a red boat"),  # who drew, typed or took it says less
        ({"contributor": "annotator 3", "label": "boat"}, "boat"),
        ({"production_date": "1999", "tags": "boat, sea"}, "boat, sea"),
        ({"artist": "Monet", "date": "1872", "category": "Painting", "folder": "scans"}, "Monet / 1872"),
        ({"artist": "Monet", "style": "Impressionism", "description": "a red boat"}, "Monet / Impressionism"),
        ({"alt": "101.5", "description": "a mountain"}, "a mountain"),  # its height
        ({"alt": "a boat", "photographer": "Bob"}, "a boat"),
        ({"alt": "a", "alt_text": "b"}, "b"),
        ({"alt": "a", "edited_prompt": "b", "author": "Bob"}, "b"),
    ],
)
def test_what_says_most_of_a_picture_is_its_caption(columns: dict[str, str], caption: str) -> None:
    assert Captioner(default_template(columns))(columns) == caption
