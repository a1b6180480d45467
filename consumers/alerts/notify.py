"""Telling people: a webhook and mail, each tried again for an hour, on one owned thread."""

import email.message
import heapq
import json
import logging
import smtplib
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, NamedTuple, Protocol

from dimint.clock import Clock
from dimint.consumers.alerts.core import AlertKey
from dimint.errors import DimintError

__all__ = ["Channel", "Mail", "Notice", "Notifier", "NotTold", "Webhook"]

SEND_S: Final = 10.0
PAUSES_S: Final = (1.0, 5.0, 30.0, 120.0, 600.0, 1200.0, 1800.0)
"""Waits between the tries; after the last one people could not be told, and that is said in the log."""
NOTICES_MAX: Final = 10_000
_SUBJECT_MAX_CHARS: Final = 200

log = logging.getLogger("dimint.alerts")


class NotTold(DimintError):
    """A channel did not take a notice."""

    retriable = True


class Notice(NamedTuple):
    """One text about one alert. `after_s` is how long it has to wait (quiet hours)."""

    key: AlertKey
    raised: bool
    text: str
    after_s: float = 0.0


class Channel(Protocol):
    """A way to people. `name` as in a rule's `tell`."""

    @property
    def name(self) -> str: ...

    def send(self, text: str) -> None:
        """Raises NotTold."""


class Webhook:
    """Posts `{"text": …}`, as Slack, Mattermost and others take it."""

    name: Final = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url
        # no redirects: the text goes where the settings say, and nowhere else
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, text: str) -> None:
        request = urllib.request.Request(  # noqa: S310 (the settings take http and https only)
            self._url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with self._opener.open(request, timeout=SEND_S) as answer:
                answer.read(1000)
        except urllib.error.HTTPError as error:
            error.close()
            raise NotTold(f"the webhook answered {error.code}") from None
        except (OSError, ValueError) as error:
            raise NotTold(f"the webhook cannot be reached ({type(error).__name__})") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class Mail:
    """Sends a mail through a server, with STARTTLS where it offers that; `auth` is user and password, or None."""

    name: Final = "mail"

    def __init__(self, server: tuple[str, int], sender: str, to: Sequence[str], auth: tuple[str, str] | None) -> None:
        self._server, self._sender, self._to, self._auth = server, sender, tuple(to), auth

    def send(self, text: str) -> None:
        mail = email.message.EmailMessage()
        first = next(iter(text.splitlines()), "")
        mail["Subject"] = f"DiMint: {first[:_SUBJECT_MAX_CHARS]}"
        mail["From"], mail["To"] = self._sender, ", ".join(self._to)
        mail.set_content(text)
        try:
            with smtplib.SMTP(*self._server, timeout=SEND_S) as server:
                server.ehlo()
                if server.has_extn("starttls"):
                    server.starttls(context=ssl.create_default_context())
                    server.ehlo()
                if self._auth is not None:
                    if not server.has_extn("auth"):
                        raise NotTold("the mail server offers no log-in without TLS")
                    server.login(*self._auth)
                server.send_message(mail)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise NotTold(f"the mail server did not take it ({type(error).__name__})") from None


class _Waiting(NamedTuple):
    due_s: float
    order: int
    notice: Notice
    channel: Channel
    tries: int


Told = Callable[[Notice, str, str | None], None]


class Notifier:
    """A process object (dimint/service.py). `told(notice, channel, problem)` is called on its thread, once a channel."""

    def __init__(self, channels: Sequence[Channel], told: Told, clock: Clock, *, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._pauses_s = tuple(pauses_s)
        self._channels = {channel.name: channel for channel in channels}
        self._told, self._clock = told, clock
        self._changed = threading.Condition()
        self._heap: list[_Waiting] = []
        self._order = count()
        self._stopping = False

    @property
    def channels(self) -> frozenset[str]:
        """Which there are."""
        return frozenset(self._channels)

    def tell(self, notice: Notice, channels: Sequence[str]) -> None:
        """Queue a notice for these channels; those that are not there are passed over. From any thread."""
        due = self._clock.monotonic() + notice.after_s
        with self._changed:
            for name in channels:
                if name in self._channels:
                    if len(self._heap) >= NOTICES_MAX:
                        log.error("too many notices wait: %r is not told", notice.text)
                        return
                    heapq.heappush(self._heap, _Waiting(due, next(self._order), notice, self._channels[name], 0))
            self._changed.notify()

    def withdraw(self, key: AlertKey) -> bool:
        """Take back that an alert is raised, where nobody was told yet; whether there was anything to take back."""
        with self._changed:
            kept = [entry for entry in self._heap if entry.notice.key != key or not entry.notice.raised]
            found = len(kept) < len(self._heap)
            if found:
                self._heap = kept
                heapq.heapify(self._heap)
        return found

    def run(self) -> None:
        while (entry := self._next()) is not None:
            try:
                entry.channel.send(entry.notice.text)
            except NotTold as error:
                self._failed(entry, str(error))
            else:
                self._told(entry.notice, entry.channel.name, None)

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _next(self) -> _Waiting | None:
        with self._changed:
            while not self._stopping:
                wait_s = self._heap[0].due_s - self._clock.monotonic() if self._heap else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._heap)
                self._changed.wait(wait_s)
        return None

    def _failed(self, entry: _Waiting, problem: str) -> None:
        if entry.tries >= len(self._pauses_s):
            log.error("%s: nobody is told %r", problem, entry.notice.text)
            self._told(entry.notice, entry.channel.name, problem)
            return
        if entry.tries == 0:
            log.warning("%s; it is tried again", problem)
        again = entry._replace(due_s=self._clock.monotonic() + self._pauses_s[entry.tries], tries=entry.tries + 1)
        with self._changed:
            heapq.heappush(self._heap, again)
