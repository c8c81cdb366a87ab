"""Keeps a connection to a server, for ever: with patience, and without filling logs."""

import asyncio
from collections.abc import Awaitable, Callable
import logging
import random
from typing import Final

from aiohttp import ClientSession

from .client import Client, Credentials, connect
from .errors import CannotConnectError, DeviceBuilderError, InvalidAuthError

_LOGGER = logging.getLogger(__name__)

FIRST_SECONDS: Final = 1.0
"""Before the second try; each further try waits twice as long."""

LONGEST_SECONDS: Final = 60.0
# Ten refused log-ins in five minutes lock an address out (`RateLimiter` in the server's
# `helpers/auth.py`).
REFUSED_SECONDS: Final = 300.0
_STABLE_SECONDS: Final = 30.0


class Link:
    """Connects again and again, and lets `serve` use each connection to its end."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        session: ClientSession,
        serve: Callable[[Client], Awaitable[None]],
        on_down: Callable[[DeviceBuilderError], None],
    ) -> None:
        """Prepare; `serve` raises when its connection is of no use any more."""
        self._url = url
        self._credentials = credentials
        self._session = session
        self._serve = serve
        self._on_down = on_down
        self._down = False
        self._tries = 0
        self._token: str | None = None

    async def run(self) -> None:
        """Connect for ever."""
        loop = asyncio.get_running_loop()
        while True:
            start = loop.time()
            error = await self._try()
            if loop.time() - start > _STABLE_SECONDS:
                self._tries = 0
            self._note(error)
            await asyncio.sleep(self._pause(error))

    def up(self) -> None:
        """Note that the server can be used."""
        if self._down:
            _LOGGER.info("ESPHome Device Builder at %s is back", self._url)
        self._down = False

    async def _try(self) -> DeviceBuilderError:
        """Use one connection to its end; return what ended it."""
        try:
            client = await connect(
                self._url, self._credentials, self._session, self._token
            )
            self._token = client.token
            try:
                await self._serve(client)
            finally:
                await client.close()
        except DeviceBuilderError as err:
            return err
        except Exception:
            _LOGGER.exception("Unexpected error with ESPHome Device Builder")
        return CannotConnectError("There was an internal error.")

    def _note(self, error: DeviceBuilderError) -> None:
        """Tell that the server cannot be used, and log it once."""
        if not self._down:
            _LOGGER.warning(
                "ESPHome Device Builder at %s is unavailable: %s", self._url, error
            )
        self._down = True
        self._on_down(error)

    def _pause(self, error: DeviceBuilderError) -> float:
        """Return how long to wait; not all who lost a server come back together."""
        pause: float = min(LONGEST_SECONDS, FIRST_SECONDS * 2**self._tries)
        self._tries = min(self._tries + 1, 16)
        if isinstance(error, InvalidAuthError):
            self._token = None
            pause = REFUSED_SECONDS
        return pause * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
