"""`sources/tables/joins.py`: what tables say by numbers that stand in other tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.sources.detect import open_source
from diffusion_art.sources.tables.metadata import NO_TABLE
from tests.fakes_sources import captions_of, jpegs, write_files

OBJECTS = "objectid,title,displaydate,attribution\n7,Sunrise,1872,Claude Monet\n9,The Wave,1870,Courbet\n11,X,1900,Y\n"
IDS = ("00007f61-4922-417b-8f27-893ea328206c", "0000bd8c-39de-4453-b55d-5e28a9beed38")


def test_the_tables_of_the_national_gallery_of_art(tmp_path: Path) -> None:
    images = f"uuid,iiifurl,depictstmsobjectid\n{IDS[0]},http://x,7\n{IDS[1]},http://x,9\n"
    write_files(tmp_path, jpegs(*(f"{name}.jpg" for name in IDS)))
    write_files(tmp_path, {"objects.csv": OBJECTS, "published_images.csv": images})
    source = open_source(tmp_path)
    assert captions_of(source) == {
        f"{IDS[0]}.jpg": "Claude Monet / Sunrise / 1872",
        f"{IDS[1]}.jpg": "Courbet / The Wave / 1870",
    }
    assert NO_TABLE not in source.left_out()


def test_several_numbers_are_labels(tmp_path: Path) -> None:
    """iMet."""
    write_files(tmp_path, jpegs("a.jpg", "b.jpg"))
    labels = "attribute_id,attribute_name\n0,men\n1,boats\n2,dogs\n"
    write_files(tmp_path, {"train.csv": "id,attribute_ids\na,0 2\nb,1\n", "labels.csv": labels})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "men, dogs", "b.jpg": "boats"}


@pytest.mark.parametrize(
    ("table", "caption"),
    [
        ("id,name,style\n1,Monet,Impressionism\n2,Gris,Cubism\n", "Monet / Sunrise / Impressionism"),
        ("artist_id,name\n1,Monet\n2,Gris\n", "Monet / Sunrise"),
        ("id,name,style\n1,Monet,Impressionism\n1,Gris,Cubism\n", "Sunrise"),  # which of the two?
        ("id,name,style\n8,Monet,Impressionism\n9,Gris,Cubism\n", "Sunrise"),
        ("museum_id,style\n1,Cubism\n", "Sunrise"),
    ],
)
def test_a_bare_id_is_that_of_what_its_table_is_called_for(tmp_path: Path, table: str, caption: str) -> None:
    pictures = "file,title,artist_id,size_id\na.jpg,Sunrise,1,2\n"
    write_files(tmp_path, {**jpegs("a.jpg"), "pictures.csv": pictures, "artists.csv": table})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": caption}
