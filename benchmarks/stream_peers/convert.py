"""Write the pictures of a shard folder in a library's own format, JPEGs byte for byte as they are.

    python -m stream_peers.convert '{"name": "litdata", "shards": "...", "out": "..."}'

Runs in the library's environment and reads the tars with the standard library.
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stream_peers.meter import report

# As many files as SHARDS has tars, so that every library can share them out and shuffle them alike.
_FILES = 16


def pairs(shards: Path) -> Iterator[tuple[bytes, str]]:
    """JPEG and caption of every training sample, in stored order."""
    for path in sorted(shards.glob("train-*.tar")):
        with tarfile.open(path) as tar:
            image = b""
            for member in tar:
                file = tar.extractfile(member)
                if file is None:
                    raise SystemExit(f"{path} has {member.name}, which is no file")
                if member.name.endswith(".jpg"):
                    image = file.read()
                elif member.name.endswith(".txt"):
                    yield image, file.read().decode()


def litdata(shards: Path, out: Path) -> None:
    """Two data sets: `own`, whose JPEGs litdata decodes, and `bytes`, whose JPEGs it hands over."""
    from functools import partial

    from litdata import optimize

    sources = out / "sources"
    sources.mkdir(parents=True)
    samples = 0
    for samples, (image, caption) in enumerate(pairs(shards), start=1):
        (sources / f"{samples - 1}.jpg").write_bytes(image)
        (sources / f"{samples - 1}.txt").write_text(caption)
    for name in ("own", "bytes"):
        optimize(
            fn=partial(litdata_item, opened=name == "own", sources=str(sources)),
            inputs=list(range(samples)),
            output_dir=str(out / name),
            chunk_size=-(-samples // _FILES),
            num_workers=1,
        )


def litdata_item(number: int, *, opened: bool, sources: str) -> dict[str, Any]:
    """Sample `number` of the files in `sources`: called in litdata's worker processes."""
    from PIL import Image

    picture, caption = Path(f"{sources}/{number}.jpg"), Path(f"{sources}/{number}.txt")
    return {"image": Image.open(picture) if opened else picture.read_bytes(), "caption": caption.read_text()}


def mosaicml(shards: Path, out: Path) -> None:
    """One data set: its `jpeg` encoding decodes as Pillow does, `bytes` hands over."""
    from streaming import MDSWriter

    images = [image for image, _ in pairs(shards)]
    limit = sum(map(len, images)) // _FILES
    for name, encoding in (("own", "jpeg"), ("bytes", "bytes")):
        columns = {"image": encoding, "caption": "str"}
        with MDSWriter(out=str(out / name), columns=columns, size_limit=limit) as writer:
            for image, caption in pairs(shards):
                writer.write({"image": _opened(image, out) if encoding == "jpeg" else image, "caption": caption})


def _opened(image: bytes, out: Path) -> Any:
    """A Pillow image of a file: only then does MDSWriter keep the bytes instead of encoding them anew."""
    from PIL import Image

    path = out / "picture.jpg"
    path.write_bytes(image)
    return Image.open(path)


def datasets(shards: Path, out: Path) -> None:
    """Parquet files with an Image column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    samples = list(pairs(shards))
    out.mkdir(parents=True)
    metadata = {
        b"huggingface": b'{"info": {"features": {"image": {"_type": "Image"}, '
        b'"caption": {"dtype": "string", "_type": "Value"}}}}'
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("caption", pa.string())], metadata=metadata)
    for file in range(_FILES):
        share = samples[file::_FILES]
        rows = [{"image": {"bytes": image, "path": None}, "caption": caption} for image, caption in share]
        pq.write_table(pa.Table.from_pylist(rows, schema), out / f"train-{file:02d}.parquet", row_group_size=100)


def main(name: str, shards: str, out: str) -> None:
    {"litdata": litdata, "mosaicml-streaming": mosaicml, "datasets": datasets}[name](Path(shards), Path(out))
    report(samples=sum(1 for _ in pairs(Path(shards))))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
