"""Modelled overlords behind real sockets."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dimint.client.content import Form, encode
from dimint.transport import Context
from dimint.wire import form_of
from dimint.wire_types import MSGPACK
from tests.support.fake_overlords import Overlord, Store


class FakeDoor:
    """One overlord of the model on a port of this machine, served by a thread of its own."""

    def __init__(self) -> None:
        self._context = Context()
        self._door = self._context.door()
        self._poller = self._context.poller()
        self._poller.add(self._door)
        self.address = self._door.bind("127.0.0.1", 0)
        self.overlord = Overlord(self.address, Store(), [self.address])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fake-door")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._poller.wake()
        self._thread.join(10)
        self._poller.remove(self._door)
        self._poller.close()
        self._door.close()
        self._context.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._poller.wait(0.5)
            for message in self._door.receive(1000):
                assert message.frame is not None
                reply = self.overlord.handle(message.frame)
                if reply is not None:
                    form = Form.MSGPACK if form_of(message.frame) is MSGPACK else Form.JSON
                    self._door.send(message.peer, encode(form, reply))


@contextmanager
def fake_door() -> Iterator[FakeDoor]:
    """A started door, stopped at the end."""
    door = FakeDoor()
    door.start()
    try:
        yield door
    finally:
        door.stop()
