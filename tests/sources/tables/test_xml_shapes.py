"""`sources/tables/xml_shapes.py`: CVAT, Pascal VOC, Dublin Core, MODS, LIDO and the Internet Archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_art.sources.detect import open_source
from diffusion_art.sources.folder.collection import DAMAGED_TABLE
from diffusion_art.sources.tables.metadata import NO_TABLE
from tests.fakes_sources import captions_of, jpegs, write_files

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>t</name></task></meta>
<image id="0" name="a.jpg"><tag label="caption"><attribute name="text">a red house</attribute></tag></image>
<image id="1" name="b.jpg"><box label="boat"></box><box label="sea"></box></image>
</annotations>"""
DUBLIN_CORE = """<?xml version="1.0" encoding="UTF-16"?>
<record><header><identifier>oai:x:{0}</identifier></header><metadata>
<oai_dc:dc xmlns:oai_dc="http://www.openarchives.org/OAI/2.0/oai_dc/" xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier>{0}</dc:identifier><dc:title>{1}</dc:title><dc:creator>{2}</dc:creator><dc:date>{3}</dc:date>
</oai_dc:dc></metadata></record>"""


@pytest.mark.parametrize("text", [CVAT, CVAT.replace(".jpg", "")])  # of a video's frames there is no suffix
def test_cvat(tmp_path: Path, text: str) -> None:
    write_files(tmp_path, {**jpegs("images/a.jpg", "images/b.jpg"), "annotations.xml": text})
    assert captions_of(open_source(tmp_path)) == {"images/a.jpg": "a red house", "images/b.jpg": "boat, sea"}


def test_pascal_voc_also_where_pictures_were_renamed(tmp_path: Path) -> None:
    told = "<annotation><filename>{}</filename><object><name>{}</name></object></annotation>"
    write_files(tmp_path, jpegs("JPEGImages/a.jpg", "JPEGImages/b.jpg"))
    for name, label in (("a", "house"), ("b", "boat")):
        write_files(tmp_path, {f"Annotations/{name}.xml": told.format("IMG_1", label)})
    assert captions_of(open_source(tmp_path)) == {"JPEGImages/a.jpg": "house", "JPEGImages/b.jpg": "boat"}


def test_dublin_core_names_pictures_by_its_identifier(tmp_path: Path) -> None:
    """The Rijksmuseum's set of 2014."""
    write_files(tmp_path, jpegs("jpg/SK-A-1.jpg", "jpg/SK-A-2.jpg"))
    rows = (("SK-A-1", "De Nachtwacht", "Rembrandt", 1642), ("SK-A-2", "Het melkmeisje", "Vermeer", 1660))
    for number, row in enumerate(rows):
        write_files(tmp_path, {f"xml/{number}.xml": DUBLIN_CORE.format(*row)})
    assert captions_of(open_source(tmp_path)) == {
        "jpg/SK-A-1.jpg": "Rembrandt / De Nachtwacht / 1642",
        "jpg/SK-A-2.jpg": "Vermeer / Het melkmeisje / 1660",
    }


MODS = """<modsCollection xmlns="http://www.loc.gov/mods/v3">{}</modsCollection>"""
MODS_RECORD = """<mods><titleInfo><title>{1}</title></titleInfo><name><namePart>{2}</namePart></name>
<originInfo><dateCreated>{3}</dateCreated></originInfo><identifier type="local">{0}</identifier></mods>"""
LIDO = """<lido:lidoWrap xmlns:lido="http://www.lido-schema.org">{}</lido:lidoWrap>"""
LIDO_RECORD = """<lido:lido><lido:lidoRecID>7</lido:lidoRecID>
<lido:titleSet><lido:appellationValue>{1}</lido:appellationValue></lido:titleSet><lido:event><lido:eventActor>
<lido:displayActorInRole>{2}, painter</lido:displayActorInRole>
<lido:nameActorSet><lido:appellationValue>{2}</lido:appellationValue></lido:nameActorSet></lido:eventActor>
<lido:eventDate><lido:displayDate>{3}</lido:displayDate></lido:eventDate></lido:event>
<lido:linkResource>https://x/{0}.jpg</lido:linkResource></lido:lido>"""
ARCHIVE = (
    "<x>{}</x>",
    "<metadata><identifier>{}</identifier><title>{}</title><creator>{}</creator><date>{}</date></metadata>",
)
OAI = "<ListRecords>{}</ListRecords>", DUBLIN_CORE.partition("?>")[2]


@pytest.mark.parametrize(("whole", "record"), [(MODS, MODS_RECORD), (LIDO, LIDO_RECORD), ARCHIVE, OAI])
def test_several_records_in_one_file(tmp_path: Path, whole: str, record: str) -> None:
    rows = (("a", "The Wave", "Courbet", 1870), ("b", "Sunrise", "Monet", 1872))
    told = whole.format("".join(record.format(*row) for row in rows))
    write_files(tmp_path, {**jpegs("a.jpg", "b.jpg"), "records.xml": told})
    assert captions_of(open_source(tmp_path)) == {
        "a.jpg": "Courbet / The Wave / 1870",
        "b.jpg": "Monet / Sunrise / 1872",
    }


def test_mets_names_its_picture_by_a_link(tmp_path: Path) -> None:
    mets = (
        """<mets xmlns:xlink="http://www.w3.org/1999/xlink">{}<file><FLocat xlink:href="file://a.jpg"/></file></mets>"""
    )
    told = mets.format(MODS_RECORD.format("7", "The Wave", "Courbet", 1870))
    write_files(tmp_path, {**jpegs("a.jpg"), "mets.xml": told})
    assert captions_of(open_source(tmp_path)) == {"a.jpg": "Courbet / The Wave / 1870"}


def test_other_xml_is_counted(tmp_path: Path) -> None:
    odd = {
        "a.xml": "<page><title>x</title></page>",
        "b.xml": "<page",
        "c.xml": '<!DOCTYPE x [<!ENTITY y "z">]><x>&y;</x>',
    }
    write_files(tmp_path, {**jpegs("a.jpg"), **odd})
    source = open_source(tmp_path)
    assert captions_of(source) == {"a.jpg": ""}
    assert source.left_out() == {NO_TABLE: 1, DAMAGED_TABLE: 2}
