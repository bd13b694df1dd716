from __future__ import annotations

import socket
import threading

from hypothesis import given
from hypothesis import strategies as st

from service.batching.channel import Connection, Notes, Unpacker, packed
from service.errors import QueueFull
from tests.service.blocking import shared_count


@given(st.lists(st.lists(st.tuples(st.integers(), st.text())), max_size=5), st.lists(st.integers(1, 60), min_size=1))
def test_messages_come_out_as_they_went_in_however_their_bytes_are_cut(
    messages: list[object], sizes: list[int]
) -> None:
    stream, unpacker, found = b"".join(map(packed, messages)), Unpacker(), []
    while stream:
        for size in sizes:
            found += unpacker.feed(stream[:size])
            stream = stream[size:]
    assert found == messages


def test_an_error_keeps_what_it_says_to_the_client() -> None:
    (error,) = Unpacker().feed(packed(QueueFull("no room", retry_after_seconds=7)))
    assert isinstance(error, QueueFull)
    assert (error.detail, error.retry_after_seconds) == ("no room", 7)


def test_a_message_larger_than_the_sockets_buffers_arrives_whole() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=Connection(ours).send, args=("x" * 5_000_000,))
        sender.start()
        found = Connection(theirs).receive_one()
        sender.join()
    assert found == "x" * 5_000_000


def test_who_waits_in_vain_gets_nothing_and_who_waits_for_nobody_hears_of_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(theirs)
        assert connection.receive(0.001) == []
        Connection(ours).send("last words")
        Connection(ours).close()
        assert connection.receive(None) == ["last words"]
        assert connection.receive(None) is None
        assert connection.receive_one() is None
        connection.send("to nobody")
        connection.close()


def test_notes_are_taken_once() -> None:
    notes = Notes()
    notes.add("a", 1)
    notes.add("b", 2.5)
    assert notes.take() == [("a", 1), ("b", 2.5)]
    assert notes.take() == []


def test_a_count_is_shared() -> None:
    count = shared_count()
    assert count.value == 0
    count.value = 1 << 40
    assert count.value == 1 << 40
