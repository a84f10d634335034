"""Prompts of one's own, and what all sets from files have in common."""

from __future__ import annotations

import codecs
import json
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import SafegenError
from safegen.prompts import Prompt, create_prompt_set
from safegen.seeds import sample_seed

Write = Callable[..., Path]
Table = Callable[..., str]


def read(spec: str, **options: Any) -> list[Prompt]:
    return list(create_prompt_set(spec, **options))


def test_the_same_prompts_in_three_formats(write: Write, table: Table) -> None:
    lines = ["a cat", "a lake, at dawn"]
    objects = [json.dumps({"prompt": line}) for line in lines]
    files = [
        write("own.txt", "\n".join(lines)),
        write("old.txt", "\r".join(lines)),
        write("own.csv", table(["prompt"], *([line] for line in lines))),
        write("own.jsonl", "\n\n".join(objects)),
    ]
    wanted = [
        (f"own-{n:06d}", line, sample_seed(f"own-{n:06d}")) for n, line in enumerate(lines, 1)
    ]
    for file in files:
        assert [(p.id, p.text, p.seed) for p in read(f"own:{file}")] == wanted


def test_own_ids_seeds_guidance_and_categories(write: Write, table: Table) -> None:
    fields = {"id": "x1", "text": "a cat", "seed": 2**64 - 1, "guidance": 3, "categories": ["pets"]}
    lines = write("own.jsonl", json.dumps(fields))
    rows = write("own.csv", table(list(fields), ["x1", "a cat", 2**64 - 1, 3.0, " Pets ,"]))
    for file in (lines, rows):
        prompts = create_prompt_set(f"own:{file},name=mine")
        assert list(prompts) == [
            Prompt("mine-x1", "a cat", 2**64 - 1, (), 3.0, ("pets",), 1 + (file == rows))
        ]
        assert (prompts.identity.name, prompts.identity.own_guidance) == ("mine", True)


def test_any_column_holds_the_prompts(write: Write, table: Table) -> None:
    file = write("own.csv", table(["prompt", "Title, and more"], ["a cat", "a dog"]))
    assert [p.text for p in read(f"own:{file}", column="title, and more")] == ["a dog"]
    file = write("words.csv", table(["Die Worte"], ["a dog"]))
    assert [p.text for p in read(f"own:{file},column=die worte")] == ["a dog"]
    with pytest.raises(SafegenError, match="no column prompt or text or caption among") as caught:
        create_prompt_set(f"own:{file}")
    assert "worte" not in str(caught.value).lower()


def test_a_byte_order_mark_is_tolerated(write: Write, table: Table) -> None:
    content = table(["prompt", "seed"], ["a cat", 5]).encode()
    file = write("own.csv", codecs.BOM_UTF8 + content)
    assert [(p.text, p.seed) for p in read(f"own:{file}")] == [("a cat", 5)]
    lines = write("own.jsonl", codecs.BOM_UTF8 + b'{"prompt": "a cat"}')
    assert [p.text for p in read(f"own:{lines}")] == ["a cat"]


def test_count_takes_the_first(write: Write) -> None:
    file = write("own.txt", "a\nb\nc\n")
    assert read(f"own:{file},count=2") == read(f"own:{file}")[:2]
    with pytest.raises(SafegenError, match=r"own\.txt: has 3 prompts, not 4; ask for fewer"):
        read(f"own:{file},count=4")


@given(
    ids=st.lists(st.integers(0, 10**6), min_size=2, max_size=30, unique=True),
    seed=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
    data=st.data(),
)
def test_a_drawn_subset_depends_on_no_order_and_grows(
    ids: list[int], seed: int, order: random.Random, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(ids) - 1))
    shuffled = order.sample(ids, len(ids))

    def drawn(rows: list[int], how_many: int) -> set[Prompt]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "own.jsonl"
            lines = (json.dumps({"id": i, "prompt": f"p{i}", "seed": i}) for i in rows)
            file.write_text("\n".join(lines))
            prompts = read(f"own:{file},count={how_many},subset_seed={seed}")
        assert [row for row in rows if any(p.seed == row for p in prompts)] == [
            p.seed for p in prompts
        ]
        return {Prompt(p.id, p.text, p.seed) for p in prompts}

    some = drawn(ids, count)
    assert len(some) == count
    assert some == drawn(shuffled, count)
    assert some < drawn(shuffled, count + 1)


def test_a_set_can_be_gone_through_again(write: Write) -> None:
    prompts = create_prompt_set(f"own:{write('own.txt', 'a' + chr(10) + 'b')}")
    assert list(prompts) == list(prompts)
    first, second = iter(prompts), iter(prompts)
    assert next(first) == next(second)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", "", r"e\.csv: has no column prompt .* among its 0; .*column=NAME"),
        ("e.txt", " \n\n", r"e\.txt: holds no prompts"),
        ("e.jsonl", "", r"e\.jsonl: has no column"),
        ("h.csv", "prompt\n", r"h\.csv: holds no prompts"),
        ("h.csv", "words\na\n", r"h\.csv: has no column prompt .*already: header=none"),
        ("h.csv", 'a,b\nc,"d\n', r"h\.csv: has no column prompt .* among its 2"),
        ("h.csv", "prompt,prompt\na,b\n", r"h\.csv: names the column prompt twice"),
        ("r.csv", "prompt,seed\na,1\n ,2\n", r"r\.csv line 3: has no text in prompt"),
        ("r.csv", 'prompt\n"a\nb"\n""\n', r"r\.csv line 4: has no text in prompt"),
        ("r.csv", "prompt,seed\na,1\na,b,2\n", r"line 3: has 3 cells where the header has 2.*qu"),
        ("r.csv", 'prompt,seed\na,1\n"b,2\n', r"line 3: cannot be read as CSV.*double quotes"),
        ("r.csv", "prompt,seed\na,1\nb,\n", r"line 3: has '' as seed.*correct it, or remove"),
        ("r.csv", "prompt,seed\na,-1\n", r"line 2: has '-1' as seed"),
        ("r.csv", "prompt,seed\na,1.5\n", r"line 2: has '1.5' as seed"),
        ("r.csv", f"prompt,seed\na,{2**64}\n", r"line 2: has '18446744073709551616' as seed"),
        ("r.csv", "prompt,guidance\na,high\n", r"line 2: has a text as guidance"),
        ("r.csv", "prompt,guidance\na,nan\n", r"line 2: has 'nan' as guidance"),
        ("r.csv", "id,prompt\nx,a\nx,b\n", r"line 3: has the id of an earlier row"),
        ("r.csv", "id,prompt\n,a\n", r"line 2: has no text in id"),
        ("r.csv", "prompt,seed\na,a house\n", r"line 2: has a text as seed"),
        ("r.csv", b"p\0r\0o\0m\0p\0t\0\n", r"r\.csv line 1: is not UTF-8 text"),
        ("r.csv", f"prompt\n{200_000 * 'a'}\n", r"line 2: cannot be read as CSV .*field larger"),
        ("r.csv", b"prompt\na\n\xe9t\xe9\n", r"r\.csv line 3: is not UTF-8 text; save"),
        ("r.txt", b"\xff\xfea\x00\n\x00", r"r\.txt line 1: is not UTF-8 text"),
        ("r.jsonl", '{"prompt": "a"}\n{"prompt"}\n', r"r\.jsonl line 2: is not valid JSON"),
        ("r.jsonl", '\n["a"]\n', r"r\.jsonl line 2: is no JSON object"),
        ("r.jsonl", '{"prompt": ["a"]}\n', r"line 1: has no text in prompt"),
        ("r.jsonl", '{"prompt": "\\ud800"}\n', r"line 1: has half a character in prompt"),
        ("r.jsonl", 99_999 * "[", r"line 1: is not valid JSON"),
        (
            "r.jsonl",
            '{"prompt": "a"}\n{"prompt": "b", "seed": 3}\n',
            r"line 1: has '' as seed",
        ),
        ("r.jsonl", '{"prompt": "a", "seed": true}\n', r"line 1: has True as seed"),
        ("r.jsonl", '{"prompt": "a", "guidance": NaN}\n', r"line 1: has nan as guidance"),
        ("r.jsonl", f'{{"prompt": "a", "guidance": 1{400 * "0"}}}\n', r"line 1: has 1000"),
        ("x.parquet", b"PAR1", r"x\.parquet: prompts own come as \.csv or \.jsonl or \.txt"),
    ],
)
def test_what_cannot_be_read_is_named(
    write: Write, name: str, content: str | bytes, message: str
) -> None:
    file = write(name, content)
    with pytest.raises(SafegenError, match=message) as caught:
        read(f"own:{file}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "has no list of annotations"),
        ('{"images": []}', "has no list of annotations"),
        ('{"annotations": []}', "holds no prompts"),
        ('{"annotations": [{"id": 1, "caption": "a"}, {"id": 2}]}', "annotation 2: has no text"),
        ('{"annotations": [{"caption": "a"}]}', "annotation 1: has no text in annotation_id"),
        ('{"annotations": ["a"]}', "annotation 1: has no"),
    ],
)
def test_broken_annotations_are_named(write: Write, content: str, message: str) -> None:
    with pytest.raises(SafegenError, match=message):
        read(f"coco:{write('captions.json', content)},count=all")


def test_a_file_that_nobody_may_read_is_named(write: Write) -> None:
    file = write("own.txt", "a")
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(SafegenError, match=r"own\.txt: cannot be read"):
        read(f"own:{file}")


def test_a_folder_or_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SafegenError, match="is a folder; give the file in it"):
        create_prompt_set(f"own:{tmp_path}")
    with pytest.raises(SafegenError, match="no such prompt file"):
        create_prompt_set(f"own:{tmp_path / 'none.csv'}")
