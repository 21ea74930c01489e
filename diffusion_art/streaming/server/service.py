"""The stream server of one event loop: a thin, stateless loop around the shards and the wire.

A request is answered from the mapped shards in frames of about a megabyte. Between two frames every other client has
its turn. A client that does not read stops only its own answers: one frame, at most, waits for it in our memory.
"""

import logging
import socket
from functools import partial
from typing import cast

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as websocket_server
from websockets.exceptions import ConnectionClosed

from diffusion_art.errors import UserError
from diffusion_art.net import BACKLOG, listen, tune
from diffusion_art.shards.mixture import Shards
from diffusion_art.streaming.answer import describe
from diffusion_art.streaming.eir.server import speak_v1
from diffusion_art.streaming.eir.shared_stream import EirPass
from diffusion_art.streaming.server.guest import Guest
from diffusion_art.streaming.server.limits import Entrance
from diffusion_art.streaming.server.metrics import Row, Table
from diffusion_art.streaming.server.reception import Reception
from diffusion_art.streaming.server.settings import Settings
from diffusion_art.streaming.server.speak import speak_v2
from diffusion_art.streaming.wire import SUBPROTOCOL

log = logging.getLogger(__name__)


async def open_server(
    shards: Shards,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    settings: Settings | None = None,
    listener: socket.socket | None = None,
    table: Table | None = None,
    counts: Row | None = None,
) -> Server:
    """A running server, on `listener` when one is given; close it, or use it as an async context manager.

    It counts in the row `counts` of `table`. UserError as from `listen`, or for a certificate that cannot be used.
    """
    settings = settings or Settings()
    table = table or Table(1)
    counts = counts or table.rows[0]
    context = settings.tls.context() if settings.tls else None
    state = EirPass(
        shards,
        seed=settings.eir_seed,
        epochs=settings.eir_epochs,
        path=settings.eir_state,
        max_batch_size=settings.limits.max_request_samples,
    )
    reception, entrance = Reception(settings, describe(shards), table, counts), Entrance()

    async def converse(connection: ServerConnection) -> None:
        try:
            tune(connection.transport)
            if connection.subprotocol == SUBPROTOCOL:
                await speak_v2(connection, shards, settings.limits)
            else:
                await speak_v1(connection, shards, state)
        except ConnectionClosed:
            pass
        except UserError as error:  # the ledger of EIR's stream, which is opened when its first client comes
            log.error("%s", error)
            await connection.close(1011, "internal error")
        except Exception:  # a bug of ours: websockets would tell only the logger that we keep quiet
            log.exception("a conversation failed, its client is dropped")
            await connection.close(1011, "internal error")

    try:
        server = await websocket_server(
            converse,
            sock=listener or listen(host, port, token=settings.token),
            ssl=context,
            backlog=BACKLOG,
            process_request=reception.hear,
            process_response=reception.settle,
            select_subprotocol=reception.choose,
            server_header=None,
            create_connection=cast("type[Guest]", partial(Guest, counts=counts, entrance=entrance)),
            compression=None,  # JPEG does not shrink, and an inflater is a way to be flooded
            max_size=settings.limits.max_message_bytes,
            write_limit=(1, 0),  # the next frame waits until the network has all of the one before
            open_timeout=settings.limits.open_timeout_s,
            ping_interval=None,  # see net.tune
            close_timeout=0.5,
            logger=_quiet_logger(),
        )
    except BaseException:
        state.close()
        raise
    server.handlers_waiter.add_done_callback(lambda _: state.close())
    return server


def _quiet_logger() -> logging.Logger:
    """Failed handshakes of strangers and port scanners are no tracebacks in our log."""
    logger = logging.getLogger("websockets.server.stream")
    logger.setLevel(logging.CRITICAL)
    return logger
