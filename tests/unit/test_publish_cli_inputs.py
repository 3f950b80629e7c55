"""Lines of files become messages, or an error that names file, line and field."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.inputs import Format, Read, Reading
from pipeline.errors import Misconfigured
from pipeline.events import Kind, Message


def read(content: str | bytes, name: str = "stdin", reading: Reading | None = None) -> list[Read]:
    """What a file of that content and name holds."""
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list((reading or Reading()).read(stream, name))


def only(lines: list[Read]) -> Message:
    """The message of a file that holds one good line."""
    (line,) = lines
    assert line.message is not None
    return line.message


def problems(lines: list[Read]) -> list[str]:
    """`where: message` of each bad line."""
    return [f"{line.where}: {line.error.message}" for line in lines if line.error]


def test_text_is_one_message_a_line() -> None:
    """Blank lines are passed over; kind and tenant come from the options."""
    lines = read("one\n\n two \r\nthree", reading=Reading(kind=Kind.COMPLETION, tenant="acme"))
    messages = [line.message for line in lines if line.message]
    assert [message.text for message in messages] == ["one", " two ", "three"]
    assert {(message.kind, message.tenant) for message in messages} == {(Kind.COMPLETION, "acme")}
    assert len({message.message_id for message in messages}) == 3


def test_whole_takes_a_file_as_one_message() -> None:
    """Line breaks are kept."""
    assert only(read("one\ntwo\n", "a.txt", Reading(whole=True))).text == "one\ntwo\n"


def test_a_json_line_says_all_there_is_to_say() -> None:
    """Its own fields win over the options; time may be a number or RFC 3339."""
    line = (
        '{"text": "t", "message_id": "m", "kind": "completion", "tenant": "x", "prompt": "p",'
        ' "sent_at": "2026-11-23T10:00:00Z", "label": "S1"}'
    )
    reading = Reading(tenant="acme")
    message = only(read(line, "a.jsonl", reading))
    assert message == Message(
        message_id="m",
        kind=Kind.COMPLETION,
        text="t",
        tenant="x",
        prompt="p",
        sent_at=datetime(2026, 11, 23, 10, tzinfo=UTC),
    )
    assert reading.ignored == {"label"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("secret", "this is not JSON (character 1)"),
        ("[1]", "this is not a JSON object"),
        ("{}", "the field 'text' is missing"),
        ('{"text": 5}', "the field 'text' is of type int, not a string"),
        ('{"text": "secret", "kind": "secret"}', "the field 'kind' is neither prompt nor"),
        ('{"text": "secret", "sent_at": "secret"}', "the field 'sent_at' is not a time"),
        ('{"text": "secret", "message_id": ""}', "the field 'message_id' is missing"),
    ],
)
def test_a_bad_json_line_names_line_and_field(line: str, problem: str) -> None:
    """And never quotes the text; the lines after it are read."""
    lines = read(f'{{"text": "a"}}\n{line}\n{{"text": "b"}}\n', "a.jsonl")
    assert len(lines) == 3
    (found,) = problems(lines)
    assert found.startswith(f"a.jsonl:2: {problem}")
    assert "secret" not in found


@pytest.mark.parametrize("field", ["text", "tenant", "kind", "sent_at", "other"])
@pytest.mark.parametrize("depth", [2, 300, 1000])
def test_a_nested_field_spoils_its_own_line_only(field: str, depth: int) -> None:
    """However deep: orjson reads deeper than it writes. Unknown fields stay unknown."""
    line = f'{{"text": "a", "{field}": {"[" * depth}{"]" * depth}}}'
    lines = read(f'{line}\n{{"text": "fine"}}\n', "a.jsonl")
    assert [bool(found.error) for found in lines] == [field != "other", False]


def test_a_prompt_has_no_prompt() -> None:
    """What only a completion has is not sent with a prompt, and that is told."""
    line = '{"text": "the answer", "prompt": "the question", "prompt_id": "p"}'
    reading = Reading()
    only(read(line, "a.jsonl", reading))
    assert reading.ignored == {"prompt", "prompt_id"}
    completions = Reading(kind=Kind.COMPLETION)
    assert only(read(line, "a.jsonl", completions)).prompt == "the question"
    assert completions.ignored == set()


def test_an_open_quote_ends_a_csv_file() -> None:
    """It took rows that nobody can count: no bad line to pass over, but the end."""
    for rest in ("good,a\ngood,a\n", 'good,a\n"good",a\ngood,a\n'):
        with pytest.raises(Misconfigured, match=r"^a\.csv:3: this is not CSV up to line [45]"):
            read(f'text,tenant\ngood,a\n"open,a\n{rest}', "a.csv")


def test_a_stray_quote_spoils_its_own_row_only() -> None:
    """The rows after it are read."""
    lines = read('text,tenant\n"bad" x,a\n"good\nlines",a\n', "a.csv")
    assert [line.message and line.message.text for line in lines] == [None, "good\nlines"]


def test_csv_columns_are_mapped_by_name() -> None:
    """Quoted cells may hold commas, quotes and line breaks; empty cells are no value."""
    content = 'id,body,org,route\n1,"a, ""b""\nc",acme,\n2,d,,chat\n'
    reading = Reading(columns={"body": "text", "id": "message_id", "org": "tenant"})
    lines = read(content, "a.CSV", reading)
    assert [line.message and line.message.text for line in lines] == ['a, "b"\nc', "d"]
    assert [line.message and line.message.tenant for line in lines] == ["acme", ""]
    assert [line.message and line.message.route for line in lines] == [None, "chat"]


def test_csv_problems_are_named_by_line() -> None:
    """Too few cells, bytes that are not UTF-8, an open quote."""
    content = b'text,tenant\nonly\ngood,a\n\xff,a\nx,"open\n'
    found = problems(read(content, "a.csv"))
    assert found[0].startswith("a.csv:2: there are 1 cells, the header has 2")
    assert found[1].startswith("a.csv:4: the field 'text' is not UTF-8")
    assert found[2].startswith("a.csv:5: this is not CSV")


def test_csv_takes_texts_of_any_length() -> None:
    """The reader's own limit of 128 KiB a cell does not hold."""
    assert len(only(read("text\n" + "x" * 500_000 + "\n", "a.csv")).text) == 500_000


def test_csv_without_a_text_column_is_an_error() -> None:
    """It says which columns there are and how to map one."""
    with pytest.raises(Misconfigured, match=r"a, b.*--column text=COLUMN"):
        read("a,b\n1,2\n", "x.csv")


def test_text_that_is_not_utf_8_names_the_byte() -> None:
    """The line is bad, its neighbours are not."""
    assert problems(read(b"a\nb\xffc\nd\n")) == ["stdin:2: the text is not UTF-8 (byte 2)"]


def test_stdin_is_recognised_by_its_first_line() -> None:
    """Records are read as records; a text in braces stays a text."""
    assert only(read('{"text": "a"}')).text == "a"
    assert only(read("{hello}")).text == "{hello}"
    assert only(read('{"text": "a"}', reading=Reading(format=Format.TEXT))).text == '{"text": "a"}'


def test_a_byte_order_mark_is_no_text() -> None:
    """Files from Windows begin with one."""
    assert only(read(b"\xef\xbb\xbfhello")).text == "hello"


@given(st.binary(max_size=200), st.sampled_from(["a.txt", "a.jsonl", "a.csv", "stdin"]))
def test_no_bytes_make_it_crash(content: bytes, name: str) -> None:
    """Every line is a message or an error, or the header is wrong."""
    for head in (b"", b"text,kind\n"):
        try:
            lines = read(head + content, name)
        except Misconfigured:
            continue
        assert all((line.message is None) != (line.error is None) for line in lines)
