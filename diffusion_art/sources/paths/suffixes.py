"""What the suffixes of files say: which are pictures, texts, tables or tars, and why others are not read."""

from __future__ import annotations

import re

from diffusion_art.sources.pictures import HEIC_EXTRA, PICKLE, can_read_heic

HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"}
_OTHERS = {".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"}
PICTURE_SUFFIXES = frozenset(_JPEG | _OTHERS)
TEXT_SUFFIXES = frozenset({".txt", ".caption", ".captions", ".text", ".cap", ".prompt", ".description"})
SIDECAR_SUFFIXES = frozenset({".tags", ".cls", ".xmp"})
JSON_SUFFIXES = frozenset({".json", ".jsonld"})
LINES_SUFFIXES = frozenset({".jsonl", ".ndjson", ".jsonlines"})  # an object a line
TABLE_SUFFIXES = JSON_SUFFIXES | LINES_SUFFIXES | {".csv", ".tsv", ".parquet", ".token", ".xml"}
TAR_SUFFIX = ".tar"

READ = PICTURE_SUFFIXES | TEXT_SUFFIXES | SIDECAR_SUFFIXES | TABLE_SUFFIXES | {TAR_SUFFIX}
NO_READER = "no reader; write parquet or WebDataset"
_NOT_READ = {  # why, of which suffixes
    HEIC_EXTRA: " ".join(HEIC_SUFFIXES),
    "an archive; unpack it": ".zip .cbz .rar .7z .tgz .gz .bz2 .xz .zst .zstd",
    "a spreadsheet; save it as csv": ".xlsx .xls .ods",
    NO_READER: ".feather .tfrecord .h5 .hdf5 .lmdb .mdb .msgpack .beton .ffcv .rec .mds .zarr",
    "no reader; pandas.read_orc and the like, and .to_parquet(FILE), make parquet of them": ".avro .orc",
    "a data base; export its table as csv, with a column that names the pictures": ".sqlite .sqlite3 .duckdb .db",
    "no reader; lance.dataset(FOLDER).to_table() and pyarrow.parquet.write_table(..., FILE) make parquet": ".lance",
    "no captions are read from these; write .txt, or a csv with the columns file_name and caption": (
        ".docx .doc .odt .rtf .yaml .yml .html .htm"
    ),
    "no reader; datasets.load_from_disk(FOLDER) and .to_parquet(FILE) for each split make parquet of them": ".arrow",
    PICKLE: ".pkl .pickle .pt .pth",
    "pointers of DVC, not the files themselves; `dvc pull` in their repository brings these": ".dvc",
    "parquet by another suffix; rename them to .parquet": ".pq .parq",
    "a download that did not end": ".part .incomplete .crdownload .aria2",
    "no reader for this format": (
        ".jxl .jp2 .j2k .jpf .psd .svg .eps .ai .xcf .tga .ico .exr .hdr .pcx .raw .dng .cr2 .cr3 .nef .arw .orf .rw2 "
        ".raf .icns .dds .pdf .djvu .mp4 .mov .webm"
    ),
}
_WHY_UNREAD = {suffix: why for why, suffixes in _NOT_READ.items() for suffix in suffixes.split()}
_PART_OF_TABLE = re.compile(r"(\.(?:csv|tsv|jsonl))\d{1,4}")  # Unsplash's photos.tsv000
_PLAIN_SUFFIX = re.compile(r"\.[a-z0-9]+(?=[^a-z0-9])")


def picture_suffixes() -> frozenset[str]:
    """Suffixes of what can be read here; HEIC is among them where `pillow-heif` is installed."""
    return PICTURE_SUFFIXES | HEIC_SUFFIXES if can_read_heic() else PICTURE_SUFFIXES


def suffix_of(file: str) -> str:
    """The last suffix of a path, in lower case; "" without one."""
    base = file[file.rfind("/") + 1 :]
    dot = base.rfind(".")
    return base[dot:].lower() if dot > 0 else ""


def stem_of(file: str) -> str:
    """A path without its last suffix."""
    suffix = suffix_of(file)
    return file[: -len(suffix)] if suffix else file


def why_unread(suffix: str) -> str | None:
    """Why files that look like pictures, tables or collections are not read; None for others."""
    if table := _PART_OF_TABLE.fullmatch(suffix):
        return f"a table by another suffix; rename it to {table[1]}"
    if plain := _PLAIN_SUFFIX.match(suffix):  # `.tfrecord-00000-of-00001`, `.jpg_large`
        suffix = plain[0]
        if suffix in PICTURE_SUFFIXES:
            return f"no suffix of pictures; rename them to {suffix}"
    return _WHY_UNREAD.get(suffix)
