"""What a frozen text tower said about each caption, kept within a bound of bytes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor

Encoded = tuple[Float[Tensor, "l d"], Float[Tensor, " p"]]  # token states and pooled vector of one caption


class CaptionCache:
    """caption -> (tokens, pooled), least recently used out first once `max_bytes` are full.

    Keys are hashes, so that long captions cost nothing; values are as given, on the device they are on.
    """

    def __init__(self, *, max_bytes: int):
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[bytes, Encoded] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, caption: str) -> Encoded | None:
        key = _key(caption)
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, caption: str, encoded: Encoded) -> None:
        key = _key(caption)
        if key in self._entries:
            self.bytes -= _bytes(self._entries.pop(key))
        self._entries[key] = encoded
        self.bytes += _bytes(encoded)
        while self.bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= _bytes(oldest)


def _key(caption: str) -> bytes:
    return hashlib.blake2b(caption.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _bytes(encoded: Encoded) -> int:
    return sum(tensor.nbytes for tensor in encoded)
