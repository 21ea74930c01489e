"""Reading from a server that speaks only protocol v1, such as EIR's own, through the interface of `StreamClient`.

That protocol has no positions: the order is the server's, so a request is answered by as many samples as it has
positions, whichever come next, and a resumed run reads on from wherever the server is. When the server's pass is
over, the next one is begun. It has no validation split either: `choose_validation` takes the first samples of the
stream once and tells the server never to send them again; they are kept in memory and are what split `val` reads.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from diffusion_art.errors import UserError
from diffusion_art.net import token_of
from diffusion_art.shards.reader import Sample
from diffusion_art.streaming.client.line import LineError, Patience, Turns
from diffusion_art.streaming.client.readers import ReadRequest
from diffusion_art.streaming.eir.line import EirLine
from diffusion_art.streaming.wire import StreamInfo

DIGEST = "eir-protocol-1.0"  # a server of v1 does not say which samples it holds

_SETUP_SAMPLES = 128  # asked for at once while choosing validation samples
_VALIDATION_SHARE = 10  # of a stream that ends while we choose: one sample in so many
_BARREN_ANSWERS = 100  # while we choose, after which the stream has no more samples
_BARREN_PASSES = 20  # in training; several workers may use up a pass before one of them gets any of it


class EirReader:
    """Reads from any of `urls`; they share nothing, unless they are one server's.

    A server that breaks off or hangs is left, and what was not yet received is asked of the next one, as
    `StreamClient` does it; what such a server had sent may then come again or not, as it keeps its own books.
    `validation` are samples that are never returned for training, and `samples` is the length of the rest of the
    stream, None where the server does not say. `token` and `ca` are as for `StreamClient`. Connects when first read.

    UserError when no server answers for `connect_for_s` at the start or `retry_for_s` in mid-run, which it is for a
    reader of a run that has `met` a server, or streams no captioned pictures.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        token: str | None = None,
        ca: str | None = None,
        validation: Sequence[Sample] = (),
        samples: int | None = None,
        met: bool = False,
        timeout_s: float = 30.0,
        retry_for_s: float = 120.0,
        connect_for_s: float = 10.0,
    ) -> None:
        self.urls = (urls,) if isinstance(urls, str) else tuple(urls)
        self.validation, self.samples = validation, samples
        self._names = frozenset(sample.key for sample in validation)
        self._token = token_of(token)
        self._ca, self._timeout_s = ca, timeout_s
        self._retry_for_s, self._connect_for_s = retry_for_s, connect_for_s
        self._turns = Turns(self.urls)
        self._line: EirLine | None = None
        self._met = met  # whether a server ever answered
        self._ready = deque[Sample]()

    def info(self) -> StreamInfo:
        """What is known of the stream. Split `train` is left out where the server does not tell its length."""
        splits = {"val": len(self.validation)} | ({} if self.samples is None else {"train": self.samples})
        return StreamInfo(" or ".join(self.urls), splits, DIGEST, image_size_px=0, caption_template=None)

    def choose_validation(self, count: int) -> tuple[list[Sample], int | None]:
        """The first `count` samples of the stream, which the server then never sends again, and what `samples` is.

        Of a stream that ends before, a tenth. For one process of a run only: each call takes other samples. So does a
        resumed run, which has been trained on them when it is past its first pass.
        """
        patience = self._patience()
        while True:
            try:
                chosen = self._first(self._open(patience), count)
                line = self._open(patience)
                line.reset()  # what was taken and not chosen is for training
                if chosen:
                    ids = {"validation_ids": [sample.key for sample in chosen]}
                    line.ask("setValidationIds", "validationIdsConfirmation", ids)
                status = line.ask("status", "status", {})
                break
            except LineError as error:
                self._leave(patience, error)
        self.close()
        total = status.get("samples") if isinstance(status, dict) else None  # our servers say; EIR's do not
        return chosen, total - len(chosen) if type(total) is int else None

    def read(self, requests: Iterable[ReadRequest], *, window: int = 8) -> Iterator[list[Sample]]:
        """As many samples as each request has positions; of split `val`, those positions.

        The answer to the next request is under way while one is used; `window` means no more than that here.
        """
        source = iter(requests)
        request = next(source, None)
        while request is not None:
            following = next(source, None)
            if request.split == "val":
                yield list(self.validation[request.start : request.stop])
            else:
                yield self._take(request.stop - request.start, then=0 if following is None else _length(following))
            request = following

    def close(self) -> None:
        """Hang up. What is read afterwards connects anew."""
        if self._line is not None:
            self._line.farewell()
        self._line = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_line": None, "_ready": deque()}

    def _take(self, count: int, *, then: int) -> list[Sample]:
        """The next `count` samples; asks for the `then` after them."""
        patience, passes, refused = self._patience(), 0, 0
        while len(self._ready) < count:
            try:
                line = self._open(patience)
                if not line.asked:
                    line.ask_data(count - len(self._ready))
                samples = line.receive_data()
                new = [sample for sample in samples or () if sample.key not in self._names]
                self._ready.extend(new)
                if new:
                    patience.rewarded()
                    passes = refused = 0
                elif samples:
                    refused += len(samples)
                else:
                    passes += 1
                if max(passes, refused / max(1, len(self.validation))) > _BARREN_PASSES:
                    raise UserError(
                        f"the EIR server at {line.url} has no samples for training beside the "
                        f"{len(self.validation)} of validation; lower data.val_samples, or serve more"
                    )
                if samples is None:
                    self.close()  # EIR's own server ends its connection with the pass
                    self._open(patience).reset()
            except LineError as error:
                self._leave(patience, error)
        taken = [self._ready.popleft() for _ in range(count)]
        if self._line is not None and not self._line.asked and len(self._ready) < then:
            try:
                self._line.ask_data(then - len(self._ready))
            except LineError:
                self.close()  # noticed, and waited for, where it is read
        return taken

    def _first(self, line: EirLine, count: int) -> list[Sample]:
        """The first `count` different samples of the stream."""
        found: dict[str, Sample] = {}
        barren = 0
        while len(found) < count and barren < _BARREN_ANSWERS:
            line.ask_data(min(_SETUP_SAMPLES, count - len(found)))
            samples, before = line.receive_data(), len(found)
            if samples is None:
                self.close()  # EIR's own server ends its connection with the pass
                break
            found |= {sample.key: sample for sample in samples}
            barren = barren + 1 if len(found) == before else 0
        tenth = -(-len(found) // _VALIDATION_SHARE)
        return list(found.values())[: count if len(found) >= count else tenth]

    def _open(self, patience: Patience) -> EirLine:
        if self._line is None:
            self._line = EirLine(
                self._turns.url,
                token=self._token,
                ca=self._ca,
                timeout_s=self._timeout_s,
                open_within_s=min(self._timeout_s, max(1.0, patience.left_s())),
            )
            self._met = True
        return self._line

    def _leave(self, patience: Patience, error: LineError) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None
        self._turns.pass_on()
        patience.failed(error)

    def _patience(self) -> Patience:
        what = f"the EIR server at {' or '.join(self.urls)} "
        if self._met:
            return Patience(self._retry_for_s, what + "has broken off; start it again and resume the run")
        return Patience(self._connect_for_s, what + "does not answer; start it, or leave data.url at auto")


def _length(request: ReadRequest) -> int:
    return 0 if request.split == "val" else request.stop - request.start
