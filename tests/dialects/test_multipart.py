"""The model of a form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import Request

from olla.dialects.dialect import Peek
from olla.dialects.json_scan import finished
from olla.dialects.multipart import multipart_model_edit, peek_multipart, scan_form
from olla.dialects.rewrite import edited
from olla.failures import Failed, Kind

TYPE = "multipart/form-data; boundary=b"


def part(head: str, value: bytes = b"m") -> bytes:
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


MODEL = 'Content-Disposition: form-data; name="model"'
FILE = 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


def kind_of(body: bytes, content_type: str = TYPE) -> Kind:
    with pytest.raises(Failed) as caught:
        peek_multipart(content_type, body)
    return caught.value.failure.kind


def made_by_a_client(model: str, audio: bytes, filename: str, **more: str) -> tuple[str, bytes]:
    request = Request(
        "POST", "http://x/", files={"file": (filename, audio)}, data={"model": model, **more}
    ).prepare()
    assert isinstance(request.body, bytes)
    return request.headers["Content-Type"], request.body


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (TYPE, form(part(MODEL))),
        (TYPE, form(part(FILE, b"\x00\xff--b\r\n--\r\n\r\n"), part(MODEL))),
        (TYPE, form(part(MODEL), part(FILE, b""))),
        (TYPE, b"\r\n" + form(part(MODEL))),
        (TYPE, form(part(MODEL)) + b"epilogue"),
        (TYPE, form(part("content-disposition:form-data;name=model"))),
        (TYPE, form(part("Content-Type: text/plain\r\n" + MODEL))),
        (TYPE, form(part(MODEL), part(FILE.replace("a.wav", "x; name=model")))),
        (TYPE, form(part(MODEL), part(FILE.replace("a.wav", '\\"; name=\\"model')))),
        (TYPE, form(part(MODEL), part(FILE, b'\r\n\r\nContent-Disposition: x; name="model"'))),
        ('Multipart/Form-Data;boundary="b"', form(part(MODEL))),
        ("multipart/form-data; charset=utf-8; boundary=b;", form(part(MODEL))),
        (TYPE, b"--b \t\r\n" + MODEL.encode() + b"\r\n\r\nm\r\n--b--"),
    ],
)
def test_the_model_is_found(content_type: str, body: bytes) -> None:
    """Wherever it stands in the form, and whatever files and their names look like."""
    assert peek_multipart(content_type, body) == Peek("m", False)


@pytest.mark.parametrize(("flag", "stream"), [("true", True), ("1", True), ("false", False)])
def test_the_stream_flag_is_found(flag: str, stream: bool) -> None:
    """As text, because forms know nothing else."""
    content_type, body = made_by_a_client("whisper", b"RIFF", "a.wav", stream=flag)
    assert peek_multipart(content_type, body) == Peek("whisper", stream)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", Kind.BAD_REQUEST),
        (b"{}", Kind.BAD_REQUEST),
        (form(), Kind.MODEL_MISSING),
        (form(part(FILE)), Kind.MODEL_MISSING),
        (form(part(MODEL, b"")), Kind.MODEL_MISSING),
        (form(part(MODEL.replace("model", "Model"))), Kind.MODEL_MISSING),
        (form(part(MODEL, b"a\nb")), Kind.MODEL_NOT_STRING),
        (form(part(MODEL, b"m" * 600)), Kind.MODEL_NOT_STRING),
        (form(part(MODEL, b"m" * 5000)), Kind.BAD_REQUEST),
        (form(part(MODEL, b"\xff")), Kind.BAD_REQUEST),
        (form(part(MODEL), part(MODEL, b"n")), Kind.BAD_REQUEST),
        (form(part(MODEL + "; filename=x")), Kind.BAD_REQUEST),
        (form(part(MODEL + '; name="file"')), Kind.BAD_REQUEST),
        (form(part(MODEL + "\r\n" + FILE)), Kind.BAD_REQUEST),
        (form(part("Content-Disposition: form-data; name*=UTF-8''model")), Kind.BAD_REQUEST),
        (form(part(MODEL + "; name*=UTF-8''file")), Kind.BAD_REQUEST),
        (form(part('Content-Disposition: form-data;\r\n name="model"')), Kind.BAD_REQUEST),
        (form(part(MODEL + "\r\nContent-Transfer-Encoding: base64")), Kind.BAD_REQUEST),
        (form(part("")), Kind.BAD_REQUEST),
        (part(MODEL), Kind.BAD_REQUEST),
        (b"preamble\r\n" + form(part(MODEL)), Kind.BAD_REQUEST),
        (form(part(MODEL)).replace(b"\r\n", b"\n"), Kind.BAD_REQUEST),
        (b"--bb\r\n" + form(part(MODEL)), Kind.BAD_REQUEST),
        (form(part("X: " + "y" * 9000 + "\r\n" + MODEL)), Kind.BAD_REQUEST),
        (form(*[part(FILE)] * 300, part(MODEL)), Kind.BAD_REQUEST),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_form_that_could_be_read_in_two_ways_is_refused(body: bytes, kind: Kind) -> None:
    """So the model that is routed by is the one the endpoint finds."""
    assert kind_of(body) is kind


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=b",
        "multipart/form-data; boundary=b; boundary=c",
        "multipart/form-data; boundary=" + "b" * 71,
        'multipart/form-data; boundary="b',
        "multipart/form-data; boundary=bé",
    ],
)
def test_the_content_type_must_name_the_boundary(content_type: str) -> None:
    """Without it there is no form."""
    assert kind_of(form(part(MODEL)), content_type) is Kind.BAD_REQUEST


def test_only_the_model_is_replaced() -> None:
    """Every other byte of the form stays where it was."""
    content_type, body = made_by_a_client("fast", b"\r\n--x\x00\xff" * 100, "a.wav", language="de")
    renamed = edited(body, [multipart_model_edit(content_type, body, "whisper:groß")])
    assert peek_multipart(content_type, renamed).model == "whisper:groß"
    assert renamed == body.replace(b"fast", "whisper:groß".encode())


def test_a_long_form_is_searched_in_steps() -> None:
    """However long it is and whatever it holds, no step searches more than a part of it."""
    content_type, body = made_by_a_client("m", b"\r\n--b" * 1_000_000, "a.wav")
    steps = scan_form(content_type, body)
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            form = done.value
            break
        count += 1
    assert count >= len(body) // 262_144
    assert peek_multipart(content_type, body, form).model == "m"


@pytest.mark.parametrize("distance", range(-8, 9))
def test_a_boundary_is_found_wherever_it_stands(distance: int) -> None:
    """Where one step ends and the next begins, too."""
    file = b"x" * (262_144 - 200 + distance)
    body = form(part(FILE, file), part(MODEL))
    found = finished(scan_form(TYPE, body))
    assert peek_multipart(TYPE, body, found).model == "m"
    assert peek_multipart(TYPE, form(part(FILE, file * 3), part(MODEL))).model == "m"


@given(
    st.text(),
    st.binary()
    | st.lists(
        st.sampled_from(
            [
                b"--b",
                b"\r\n",
                b"--",
                MODEL.encode(),
                FILE.encode(),
                b"\r\n\r\n",
                b"m",
                b"\n",
                b"\x00",
            ]
        )
    ).map(b"".join),
)
def test_it_raises_nothing_but_failed(content_type: str, body: bytes) -> None:
    """No header and no body surprise it."""
    for each in (content_type, "multipart/form-data;" + content_type, TYPE):
        try:
            assert peek_multipart(each, body).model
        except Failed:
            continue


@given(
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=30),
    st.binary(),
)
def test_what_clients_send_is_read(model: str, audio: bytes) -> None:
    """A form made by an HTTP library names its model, whatever the file holds."""
    content_type, body = made_by_a_client(model, audio, "a.wav")
    assert peek_multipart(content_type, body).model == model
