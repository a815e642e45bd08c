"""The channel between ingestion and a submission: whatever bytes come, there is a message or one clear error."""

from __future__ import annotations

import json
import socket
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from values import JSON_VALUES, as_json, assert_one_line, objects

from ingestion.channel import MAX_MESSAGE_BYTES, Channel, Message
from ingestion.errors import SubmissionError

MIB = 2**20


def receive(data: bytes, *, max_head_bytes: int = MIB) -> Message | Exception:
    """What the other end makes of these bytes, after which this one closes."""
    ours, theirs = socket.socketpair()
    channel = Channel(theirs.detach(), max_head_bytes=max_head_bytes)
    try:
        ours.settimeout(5)
        ours.sendall(data)
        ours.close()
        return channel.receive()
    except (SubmissionError, EOFError) as error:
        return error
    finally:
        channel.close()


def frame(raw: bytes) -> bytes:
    return struct.pack("!Q", len(raw)) + raw


@pytest.mark.medium
@given(st.binary(max_size=200))
def test_random_bytes_give_one_clear_error(data: bytes) -> None:
    outcome = receive(data)
    assert isinstance(outcome, (SubmissionError, EOFError))
    assert_one_line(outcome)


@pytest.mark.medium
@given(objects("kind", "fields", "dtype", "shape") | JSON_VALUES, st.binary(max_size=40))
@example({"kind": "x", "fields": {}, "dtype": "f4,i4", "shape": [1]}, b"0" * 8)
@example({"kind": "x", "fields": {}, "dtype": "(2", "shape": [1]}, b"0" * 8)
@example({"kind": "x", "fields": {}, "dtype": "a5", "shape": [1]}, b"0" * 5)
@example({"kind": "x", "fields": {}, "dtype": "=" * 5000, "shape": [1]}, b"")
@example({"kind": "x", "fields": {}, "dtype": "i4", "shape": [2**70, 0]}, b"")
@example({"kind": "x", "fields": {}, "dtype": "i4", "shape": [1] * 100}, b"0000")
@example({"kind": "x", "fields": {}, "dtype": "i4", "shape": [True]}, b"0000")
@example({"kind": "x", "fields": {}, "dtype": "i4", "shape": None}, b"0000")
def test_any_head_is_a_message_or_one_clear_error(head: object, payload: bytes) -> None:
    outcome = receive(frame(as_json(head) + b"\n" + payload))
    if isinstance(outcome, Message):
        assert outcome.array is None or outcome.array.nbytes == len(payload)
    else:
        assert isinstance(outcome, SubmissionError) and outcome.fatal
        assert_one_line(outcome)


@pytest.mark.medium
@given(
    arrays.arrays(
        st.sampled_from(["u1", "i8", "<f4", ">f8", "?"]), arrays.array_shapes(max_dims=3, max_side=5)
    ),
    st.dictionaries(st.sampled_from(["ways", "left"]), st.integers() | st.text(max_size=8), max_size=2),
    st.integers(min_value=0, max_value=400),
)
def test_what_is_sent_arrives_and_half_of_it_is_an_end(
    array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], fields: dict[str, Any], cut: int
) -> None:
    ours, theirs = socket.socketpair()
    sender, receiver = Channel(ours.detach()), Channel(theirs.detach())
    sender.send("predictions", array, **fields)
    message = receiver.receive()
    assert message.fields == fields
    assert message.array is not None and message.array.dtype == array.dtype
    np.testing.assert_array_equal(message.array, array)
    sender.close()
    receiver.close()
    head = json.dumps({"kind": "k", "fields": {}, "dtype": array.dtype.str, "shape": array.shape}).encode()
    whole = frame(head + b"\n" + array.tobytes())
    half = receive(whole[: min(cut, len(whole) - 1)])
    assert isinstance(half, EOFError), "a half message is an end, not a message"


@pytest.mark.parametrize("length", [MAX_MESSAGE_BYTES + 1, 2**63, 2**64 - 1])
def test_a_huge_length_is_refused_before_memory_is_taken(length: int) -> None:
    tracemalloc.start()
    outcome = receive(struct.pack("!Q", length) + b"x" * 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(outcome, SubmissionError) and f"{length} bytes" in str(outcome)
    assert peak < MIB


def test_a_huge_head_is_refused_before_it_is_parsed() -> None:
    outcome = receive(frame(b"[" * 100_000), max_head_bytes=1000)
    assert isinstance(outcome, SubmissionError) and "100000 bytes of JSON" in str(outcome)
    assert isinstance(receive(frame(b"[" * 100_000)), SubmissionError), "brackets that are nested too deeply"
