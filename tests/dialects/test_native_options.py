"""The types of the options that olla reads."""

import msgspec
import pytest

from olla.dialects.native_options import (
    KEEP_ALIVE,
    LOAD_OPTIONS,
    NUMBER,
    OPTIONS,
    RAW_OPTIONS,
    Options,
    RawOptions,
)


def test_both_shapes_have_the_same_options() -> None:
    """Those a model is loaded with, in their order, and how long the answer may be."""
    names = (*LOAD_OPTIONS, "num_predict")
    assert Options.__struct_fields__ == RawOptions.__struct_fields__ == names
    assert list(LOAD_OPTIONS) == sorted(LOAD_OPTIONS)


def test_what_is_not_asked_for_is_passed_over() -> None:
    """Whatever it is: the shapes make no objects of it."""
    body = b'{"x":[[],{"num_ctx":1}],"num_ctx":8192,"stop":["a"],"num_gpu":null,"use_mmap":true}'
    found = OPTIONS.decode(body)
    assert (found.num_ctx, found.num_gpu, found.use_mmap, found.main_gpu) == (
        8192,
        None,
        True,
        None,
    )
    raw = RAW_OPTIONS.decode(body.replace(b"8192", b"[1]"))
    assert bytes(raw.num_ctx) == b"[1]"
    assert bytes(raw.main_gpu) == b""


@pytest.mark.parametrize("text", [b'"1"', b"[]", b"{}", b"1e999"])
def test_a_number_is_a_number(text: bytes) -> None:
    """Or a flag, or nothing."""
    with pytest.raises(msgspec.MsgspecError):
        NUMBER.decode(text)
    with pytest.raises(msgspec.MsgspecError):
        OPTIONS.decode(b'{"num_ctx":%b}' % text)


def test_keep_alive_is_a_number_or_a_text() -> None:
    """A flag is neither."""
    assert [KEEP_ALIVE.decode(text) for text in (b"5", b"1.5", b'"5m"', b"null")] == [
        *(5, 1.5, "5m", None)
    ]
    with pytest.raises(msgspec.MsgspecError):
        KEEP_ALIVE.decode(b"true")
