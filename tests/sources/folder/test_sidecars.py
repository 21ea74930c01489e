"""`sources/folder/sidecars.py`: what programs that sort pictures write beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.sources.detect import open_source
from diffusion_art.sources.folder.collection import ORPHAN_TEXTS
from diffusion_art.sources.folder.sidecars import UNREAD_XMP, read_xmp
from diffusion_art.sources.programs.generators import prompt_of
from tests.fakes_sources import captions_of, jpegs, notes_of, pictures_of, write_files

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">{}</rdf:Description>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
DESCRIPTION = """<dc:description><rdf:Alt><rdf:li xml:lang="de">Ein Haus</rdf:li>
<rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></dc:description>"""
KEYWORDS = "<dc:subject><rdf:Bag><rdf:li>house</rdf:li><rdf:li>lake</rdf:li></rdf:Bag></dc:subject>"
TITLE = '<dc:title><rdf:Alt><rdf:li xml:lang="x-default">By the Lake</rdf:li></rdf:Alt></dc:title>'


def test_texts_of_booru_tools(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    write_files(tmp_path, {"a.tags": "cat\nblue_sky\n", "b.jpg.tags": "dog, grass", "b.txt": "a dog"})
    write_files(tmp_path, {"c.prompt": "a bird", "d.captions": "a fish\na small fish", "e.tags": "nobody"})
    source = open_source(tmp_path)
    assert captions_of(source) == {
        "a.jpg": "cat, blue_sky",
        "b.jpg": "a dog",
        "c.jpg": "a bird",
        "d.jpg": ("a fish", "a small fish"),
    }
    assert pictures_of(source)["b.jpg"].columns["tags"] == "dog, grass"
    assert source.left_out() == {ORPHAN_TEXTS: 1}


@pytest.mark.parametrize(
    ("inner", "caption"),
    [
        (DESCRIPTION.format("A house") + TITLE + KEYWORDS, "A house"),
        (TITLE + KEYWORDS, "By the Lake"),
        (KEYWORDS, "house, lake"),
        (DESCRIPTION.format("OLYMPUS DIGITAL CAMERA") + KEYWORDS, "house, lake"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("name", ["a.xmp", "a.jpg.xmp"])
def test_xmp(tmp_path: Path, inner: str, caption: str, name: str) -> None:
    write_files(tmp_path, {**jpegs("a.jpg"), name: XMP.format(inner)})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": caption}


def test_any_other_caption_is_preferred_to_xmp(tmp_path: Path) -> None:
    write_files(tmp_path, jpegs("a.jpg", "b.jpg", "c.jpg"))
    write_files(tmp_path, {f"{name}.xmp": XMP.format(DESCRIPTION.format("A house")) for name in "abc"})
    write_files(tmp_path, {"t.csv": "file,text\na.jpg,of the table\n", "b.txt": "of the text"})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "of the table", "b.jpg": "of the text", "c.jpg": "A house"}


def test_xmp_that_could_grow_without_end_is_passed_by(tmp_path: Path) -> None:
    entity = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    write_files(tmp_path, jpegs("a.jpg", "b.jpg"))
    write_files(tmp_path, {"a.xmp": entity + XMP.format("&b;"), "b.xmp": "<x:xmpmeta>"})
    source = open_source(tmp_path)
    assert captions_of(source) == {"a.jpg": "", "b.jpg": ""}
    assert notes_of(source) == {UNREAD_XMP: 2}
    with pytest.raises(ValueError, match="document type"):
        read_xmp(entity + "<x/>")


def test_of_the_settings_of_a_generated_picture_the_prompt_is_its_caption(tmp_path: Path) -> None:
    noted = "a castle,\nat night\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
    assert prompt_of(noted) == "a castle,\nat night"
    assert prompt_of("Steps: 20 of them lead up") == "Steps: 20 of them lead up"
    write_files(tmp_path, {**jpegs("a.jpg"), "a.txt": noted.replace(",\n", ", ")})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "a castle, at night"}


def test_what_darktable_notes_of_its_own_is_no_keyword() -> None:
    tags = ("castle", "moss", "changed", "darktable", "format", "jpg")
    hierarchy = ("darktable|changed", "darktable|format|jpg", "places|castle", "moss")
    bag, tree = ("".join(f"<rdf:li>{text}</rdf:li>" for text in texts) for texts in (tags, hierarchy))
    text = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/">'
        f"<dc:subject><rdf:Bag>{bag}</rdf:Bag></dc:subject>"
        f"<lr:hierarchicalSubject><rdf:Bag>{tree}</rdf:Bag></lr:hierarchicalSubject>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    assert read_xmp(text) == {"keywords": "castle, moss"}


def test_a_headline_is_a_title() -> None:
    text = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:Headline="A Castle"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    assert read_xmp(text) == {"title": "A Castle"}
