"""A plain web server of a folder, which does what the worst ones do when it is told to."""

from __future__ import annotations

import base64
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Web:
    """Serves `folder` at `url`, with ranges unless `ranged` is False.

    `fault(file, number)` is asked at the number-th request of a file, from 0: None, or what is to go wrong: an HTTP
    status, "cut" (the body ends half way and the connection with it), "short" (fewer bytes, as if they were all),
    "flip" (a byte is another), or seconds to wait in the middle of the body.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranged, self.down = True, False
        self.fault: Callable[[str, int], object] = lambda file, number: None
        self.checksums = False  # with each answer the CRC-32 of the whole file, as rclone's S3 sends it
        self.asked: Counter[str] = Counter()
        self.encodings: set[str | None] = set()
        self.authorized: str | None = None
        self.ranges: list[tuple[str, str | None]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": self}))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/{folder.name}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.down = True
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        web, file = self.web, self.path.rpartition("/")[2]
        with web.lock:
            number = web.asked[file]
            web.asked[file] += 1
            web.ranges.append((file, self.headers.get("Range")))
            web.encodings.add(self.headers.get("Accept-Encoding"))
            web.authorized = self.headers.get("Authorization")
            web.at_once += 1
            web.most_at_once = max(web.most_at_once, web.at_once)
        try:
            self._answer(file, web.fault(file, number))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with web.lock:
                web.at_once -= 1

    def do_HEAD(self) -> None:
        """What a client of S3 asks first."""
        path = self.web.folder.parent / self.path.lstrip("/")
        self.send_response(200 if path.is_file() else 404)
        self.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
        self.send_header("Last-Modified", self.date_time_string())
        self.send_header("ETag", '"0"')
        self.end_headers()

    def _answer(self, file: str, fault: object) -> None:
        if self.web.down:
            self.close_connection = True
            return
        path = self.web.folder.parent / self.path.lstrip("/")
        if isinstance(fault, int) or not path.is_file():
            self.send_response(fault if isinstance(fault, int) else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        checksum = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if asked and self.web.ranged:
            data = data[int(asked[1]) : int(asked[2]) + 1]
        if fault == "short":
            data = data[:-1]
        if fault == "flip":
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(206 if asked and self.web.ranged else 200)
        self.send_header("Content-Length", str(len(data)))
        if self.web.checksums:
            self.send_header("x-amz-checksum-crc32", checksum)
        self.end_headers()
        half = len(data) // 2
        self.wfile.write(data[:half])
        if fault == "cut":
            self.close_connection = True
            return
        if isinstance(fault, float):
            time.sleep(fault)
        self.wfile.write(data[half:])

    def log_message(self, *_: object) -> None:
        """A test has nothing to say."""
