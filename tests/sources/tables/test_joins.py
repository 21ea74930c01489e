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


@pytest.mark.parametrize(
    ("table", "rows", "caption"),
    [
        ("objects.csv", "objectid,artist,date\n1,Monet,1872\n", "Monet / Sunrise / 1872"),
        ("museum_objects_2024.csv", "objectid,artist\n1,Monet\n", "Monet / Sunrise"),
        ("captions.csv", "objectid,caption\n1,a harbour\n", "a harbour"),
        ("sales.csv", "objectid,date,description\n1,1990,sold\n", "Sunrise"),
        ("reviews.csv", "objectid,text,author\n1,I like it,Bob\n", "Sunrise"),
        ("museums.csv", "museum_id,name,year\n7,Louvre,1793\n", "Sunrise"),
        ("licenses.csv", "id,text\n3,You are free to share\n", "Sunrise"),
        ("users.csv", "id,name,date\n5,Bob,2020\n", "Sunrise"),
        ("artists.csv", "artist_id,artist,year,style\n2,Monet,1840,Impressionism\n", "Monet / Sunrise / Impressionism"),
        ("authors.csv", "id,full name,year\n4,Claude Monet,1840\n", "Claude Monet / Sunrise"),
    ],
)
def test_of_museums_licences_and_sales_nothing_is_said_of_a_painting(
    tmp_path: Path, table: str, rows: str, caption: str
) -> None:
    numbers = "file,title,objectid,museum_id,license_id,user_id,artist_id,author_id\na.jpg,Sunrise,1,7,3,5,2,4\n"
    write_files(tmp_path, {**jpegs("a.jpg"), "pictures.csv": numbers, table: rows})
    source = open_source(tmp_path)
    assert captions_of(source) == {"a.jpg": caption}
    assert (NO_TABLE in source.left_out()) == (caption == "Sunrise")
