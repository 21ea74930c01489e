"""Objects of museums: `sources/programs/museums.py`, and the dumps in which they come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion_art.sources.detect import open_source
from diffusion_art.sources.tables.metadata import NO_TABLE
from tests.fakes_sources import captions_of, jpegs, write_files

HARVARD = {
    "records": [
        {"objectid": 1, "title": "Gare", "dated": "1877", "images": [], "people": [
            {"role": "Artist", "name": "Monet"}, {"role": "Sitter", "name": "Camille"}]},
        {"objectid": 2, "title": "Rehearsal", "dated": "1873", "people": [{"role": "Artist", "name": "Degas"}]},
    ]
}  # fmt: skip
LINKED_ART = {
    "type": "HumanMadeObject",
    "_label": "Irises",
    "produced_by": {"carried_out_by": [{"_label": "Vincent van Gogh"}], "timespan": {"_label": "1889"}},
}


def smithsonian(number: int, title: str) -> str:
    media = {"media": [{"idsId": f"NPG-{number}", "content": f"https://x/deliveryService?id=NPG-{number}"}]}
    about = {"title": {"label": "Title", "content": title}, "record_ID": f"npg_{number}", "online_media": media}
    names = [{"label": "Sitter", "content": "Ada"}, {"label": "Artist", "content": "Bo"}]
    free = {"name": names, "date": [{"label": "Date", "content": "1836"}]}
    return json.dumps({"id": f"edanmdm-{number}", "content": {"descriptiveNonRepeating": about, "freetext": free}})


def test_people_with_roles_at_harvard(tmp_path: Path) -> None:
    write_files(tmp_path, {**jpegs("1.jpg", "2.jpg"), "objects.json": json.dumps(HARVARD)})
    assert captions_of(open_source(tmp_path)) == {"1.jpg": "Monet / Gare / 1877", "2.jpg": "Degas / Rehearsal / 1873"}


def test_records_of_the_smithsonian(tmp_path: Path) -> None:
    lines = "\n".join([smithsonian(1, "Portrait of Ada"), smithsonian(2, "A Hat")])
    write_files(tmp_path, {**jpegs("NPG-1.jpg", "NPG-2.jpg"), "00.json": lines})
    captions = captions_of(open_source(tmp_path))
    assert captions == {"NPG-1.jpg": "Bo / Portrait of Ada / 1836", "NPG-2.jpg": "Bo / A Hat / 1836"}


@pytest.mark.parametrize("name", ["a.json", "a.jsonld"])
def test_linked_art_beside_a_picture(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, {**jpegs("a.jpg"), name: json.dumps(LINKED_ART)})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "Vincent van Gogh / Irises / 1889"}


def test_a_folder_of_records_is_a_table(tmp_path: Path) -> None:
    """Chicago's dump: a file an object, which names its picture by an id."""
    write_files(tmp_path, jpegs("images/2d484387.jpg", "images/3c27b499.jpg"))
    rows = (
        ("2d484387", "La Grande Jatte", "Georges Seurat"),
        ("3c27b499", "American Gothic", "Grant Wood"),
        ("x", "y", "z"),
    )
    for number, (image, title, artist) in enumerate(rows):
        row = {"id": number, "title": title, "artist_title": artist, "image_id": image, "term_titles": ["a", "b"]}
        write_files(tmp_path, {f"json/artworks/{number}.json": json.dumps(row)})
    source = open_source(tmp_path)
    assert captions_of(source) == {
        "images/2d484387.jpg": "Georges Seurat / La Grande Jatte",
        "images/3c27b499.jpg": "Grant Wood / American Gothic",
    }
    assert NO_TABLE not in source.left_out()


def objects(*numbers: int) -> str:
    return "Object ID,Title,Artist Display Name,Object Date\n" + "".join(
        f"{n},Title {n},Bo,19{n % 9}0\n" for n in numbers
    )


def test_a_few_pictures_of_a_large_table_are_found_by_its_ids(tmp_path: Path) -> None:
    """The Metropolitan's table of 480,000 objects, of which a few pictures were downloaded."""
    write_files(tmp_path, {**jpegs("435809.jpg", "436001.jpg"), "MetObjects.csv": objects(*range(435700, 436100))})
    assert captions_of(open_source(tmp_path)) == {
        "435809.jpg": "Bo / Title 435809 / 1920",
        "436001.jpg": "Bo / Title 436001 / 1950",
    }


def test_pictures_that_are_just_numbered_are_not_the_objects_of_those_numbers(tmp_path: Path) -> None:
    write_files(tmp_path, {**jpegs("1.jpg", "2.jpg", "3.jpg"), "artists.csv": objects(*range(1, 50))})
    source = open_source(tmp_path)
    assert set(captions_of(source).values()) == {""}
    assert source.left_out() == {NO_TABLE: 1}


def test_the_date_of_a_painting_by_another_name(tmp_path: Path) -> None:
    """Tate's `artist`, `title` and `year`; `Author` and the like are left alone."""
    rows = "artist,title,year,thumbnailUrl\nRobert Blake,A Figure Bowing,1785,http://x/A/A00/A00001_8.jpg\n"
    write_files(tmp_path, {**jpegs("A00001_8.jpg"), "artwork_data.csv": rows})
    assert captions_of(open_source(tmp_path)) == {"A00001_8.jpg": "Robert Blake / A Figure Bowing / 1785"}


def test_each_museum_has_its_own_names_for_columns(tmp_path: Path) -> None:
    """One template cannot name them all."""
    met = {"objectID": 437133, "title": "Garden", "artistDisplayName": "Claude Monet", "objectDate": "1867"}
    aic = {"data": {"id": 123, "title": "Stacks", "artist_display": "Georges Seurat", "date_display": "1890"}}
    smk = {
        "object_number": "KMS1",
        "titles": [{"title": "The Wave", "language": "en"}],
        "production": [{"creator": "Kobke"}],
        "production_date": [{"period": "1845"}],
    }
    schema = {"@type": "VisualArtwork", "name": "Sea", "creator": {"@type": "Person", "name": "Al"}}
    vam = {"systemNumber": "O1", "_primaryTitle": "Mill", "_primaryMaker": {"name": "Bo"}, "_primaryDate": "1820"}
    for name, record in {"437133": met, "123": aic, "KMS1": smk, "O1": vam, "9": schema}.items():
        write_files(tmp_path, {**jpegs(f"{name}.jpg"), f"{name}.json": json.dumps(record)})
    assert captions_of(open_source(tmp_path)) == {
        "437133.jpg": "Claude Monet / Garden / 1867",
        "123.jpg": "Georges Seurat / Stacks / 1890",
        "KMS1.jpg": "Kobke / The Wave / 1845",
        "O1.jpg": "Bo / Mill / 1820",
        "9.jpg": "Al / Sea",
    }


def test_further_pictures_of_an_object_are_its_own(tmp_path: Path) -> None:
    """The Metropolitan's `additionalImages`."""
    row = {"title": "Garden", "artistDisplayName": "Monet", "primaryImage": "https://x/1.jpg"}
    write_files(tmp_path, {**jpegs("1.jpg", "2.jpg"), "met.json": json.dumps([{**row, "additionalImages": ["2.jpg"]}])})
    assert captions_of(open_source(tmp_path)) == {"1.jpg": "Monet / Garden", "2.jpg": "Monet / Garden"}
