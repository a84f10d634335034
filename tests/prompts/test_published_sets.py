"""Every published set is read in the forms in which it is distributed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from safegen.errors import SafegenError
from safegen.prompts import Prompt, create_prompt_set
from safegen.seeds import sample_seed

Write = Callable[..., Path]
Table = Callable[..., str]

I2P = [
    "prompt", "categories", "hard", "inappropriate_percentage", "nudity_percentage",
    "q16_percentage", "sd_safety_percentage", "prompt_toxicity", "lexica_url", "sd_seed",
    "sd_guidance_scale", "sd_image_width", "sd_image_height", "sd_model",
]  # fmt: skip


def i2p_row(prompt: str, categories: str, seed: Any, guidance: Any) -> list[Any]:
    """A row in the benchmark's own columns."""
    return [prompt, categories, 0, 0.0, 0, 0.0, 0.0, 0.1, "-", seed, guidance, 512, 512, "SD"]


def read(spec: str, **options: Any) -> list[Prompt]:
    return list(create_prompt_set(spec, **options))


def texts(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


@pytest.fixture
def i2p_file(write: Write, table: Table) -> Path:
    rows = [
        i2p_row("a lake, at dawn", "hate, violence", 1_000_000_007, 7),
        i2p_row("a hill\nin two lines", "self-harm", 4294967295, 7.5),
        i2p_row("a cat", "violence", "12.0", 12),
    ]
    return write("i2p_benchmark.csv", table(I2P, *rows))


def test_i2p_has_its_own_seeds_guidance_and_categories(i2p_file: Path) -> None:
    prompts = create_prompt_set(f"i2p:{i2p_file}")
    assert list(prompts) == [
        Prompt("i2p-000001", "a lake, at dawn", 1_000_000_007, (), 7.0, ("hate", "violence"), 2),
        Prompt("i2p-000002", "a hill\nin two lines", 4294967295, (), 7.5, ("self-harm",), 3),
        Prompt("i2p-000003", "a cat", 12, (), 12.0, ("violence",), 5),
    ]
    identity = prompts.identity
    assert (identity.name, identity.source) == ("i2p", "i2p_benchmark.csv")
    assert identity.file_hash == hashlib.sha256(i2p_file.read_bytes()).hexdigest()
    assert (identity.seeds, identity.own_guidance, identity.options) == ("file", True, {})


def test_i2p_by_category_keeps_ids_and_seeds(i2p_file: Path) -> None:
    everything = {prompt.id: prompt for prompt in read(f"i2p:{i2p_file}")}
    chosen = create_prompt_set(f"i2p:{i2p_file},categories=violence")
    assert [prompt.id for prompt in chosen] == ["i2p-000001", "i2p-000003"]
    assert all(everything[prompt.id] == prompt for prompt in chosen)
    assert chosen.identity.options == {"categories": ("violence",)}
    either = read(f"i2p:{i2p_file},categories=self-harm+hate")
    assert [prompt.id for prompt in either] == ["i2p-000001", "i2p-000002"]
    assert either == read(f"i2p:{i2p_file}", categories=("self-harm", "hate"))


def test_i2ps_null_is_a_word_and_other_empty_rows_are_passed_over_only_if_asked(
    write: Write, table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [i2p_row("", "hate", 4261564198, 7), i2p_row(" ", "hate", 2, 7), i2p_row("a", "", 3, 7)]
    file = write("i2p.csv", table(I2P, *rows))
    with pytest.raises(SafegenError, match=r"i2p\.csv line 3: has no text.*empty=skip"):
        read(f"i2p:{file}")
    prompts = create_prompt_set(f"i2p:{file},empty=skip")
    for _ in range(2):
        found = [(prompt.id, prompt.text) for prompt in prompts]
        assert found == [("i2p-000001", "Null"), ("i2p-000003", "a")]
    assert [record.message for record in caplog.records] == [
        f"{file} line 3: holds no prompt and is passed over"
    ]
    assert prompts.identity.options == {"empty": "skip"}


def test_i2p_names_unknown_and_absent_categories(
    i2p_file: Path, write: Write, table: Table
) -> None:
    with pytest.raises(SafegenError, match=r"unknown category 'violent'.*illegal activity"):
        create_prompt_set(f"i2p:{i2p_file},categories=violent")
    with pytest.raises(SafegenError, match="holds no prompts of category sexual"):
        read(f"i2p:{i2p_file},categories=sexual")
    bare = write("bare.csv", table(["prompt"], ["a cat"]))
    with pytest.raises(SafegenError, match="has no column categories or category"):
        create_prompt_set(f"i2p:{bare},categories=sexual")


@pytest.mark.parametrize(
    ("seed_column", "guidance_column"),
    [("evaluation_seed", "evaluation_guidance"), ("seed", "guidance"), ("SD Seed", "sd_guidance")],
)
def test_copies_that_rename_columns(
    write: Write, table: Table, seed_column: str, guidance_column: str
) -> None:
    columns = ["", "case_number", "prompt", seed_column, guidance_column]
    file = write("copy.csv", table(columns, [0, 17, "a cat", 5, 7.5]))
    for name in ("i2p", "unlearndiffatk"):
        (prompt,) = read(f"{name}:{file}")
        known = guidance_column != "sd_guidance"
        assert (prompt.seed, prompt.guidance) == (5, 7.5 if known else None)


def test_sneakyprompt_reads_text_in_both_forms(write: Write) -> None:
    file = write("found.txt", "\ufeffa lake\r\n\r\n  a hill  \r\n")
    natural, pseudo = (create_prompt_set(f"sneakyprompt:{file},form={form}") for form in "np")
    assert texts(list(natural)) == texts(list(pseudo)) == ["a lake", "a hill"]
    assert [prompt.line for prompt in natural] == [1, 3]
    assert [prompt.id for prompt in natural] == ["sneakyprompt-n-000001", "sneakyprompt-n-000002"]
    assert (natural.identity.name, pseudo.identity.name) == ("sneakyprompt-n", "sneakyprompt-p")
    with pytest.raises(SafegenError, match="form must be n"):
        create_prompt_set(f"sneakyprompt:{file},form=x")


def test_sneakyprompt_keeps_the_successes_of_its_own_results(write: Write, table: Table) -> None:
    columns = ["original_text", "perturbed_text", "num_queries", "result_type", "similarity score"]
    rows = [
        ["a hill", "a hull", 3, "Successful", 0.3],
        ["a cat", "a cat", 0, "Skipped", ""],
        ["a dog", "a dig", 9, "Successful", 0.4],
    ]
    file = write("results.csv", table(columns, *rows))
    assert texts(read(f"sneakyprompt:{file}")) == ["a hull", "a dig"]
    skipped = write("skipped.csv", table(columns, rows[1]))
    with pytest.raises(SafegenError, match="holds no prompts of successful attacks"):
        read(f"sneakyprompt:{skipped}")


def test_mma_takes_the_adversarial_prompt_unless_told(write: Write, table: Table) -> None:
    columns = ["target_prompt", "adv_prompt", "sanitized_adv_prompt", "clean_prompt"]
    file = write("mma.csv", table(columns, ["a cat", "a xq cat lm", "a cat here", "a dog"]))
    assert texts(read(f"mma:{file}")) == ["a xq cat lm"]
    sanitized = create_prompt_set(f"mma:{file},column=sanitized_adv_prompt")
    assert texts(list(sanitized)) == ["a cat here"]
    assert sanitized.identity.options == {"column": "sanitized_adv_prompt"}


def test_ring_a_bell_reads_both_forms(write: Write, table: Table) -> None:
    ours = write("eta_3_K_16.csv", table(["case_number", "prompt", "evaluation_seed"], [0, "a", 7]))
    pairs = write("pairs.csv", table(["sensitive prompt", "normal prompt"], ["a hill", "a lake"]))
    bare = write("bare.csv", table(['a hill, "blue"'], ["a lake"]))
    with pytest.raises(SafegenError, match=r"already: header=none$"):
        read(f"ring-a-bell:{bare}")
    headless = read(f"ring-a-bell:{bare},header=none")
    assert [(p.id, p.line, p.text) for p in headless] == [
        ("ring-a-bell-000001", 1, 'a hill, "blue"'), ("ring-a-bell-000002", 2, "a lake"),
    ]  # fmt: skip
    with pytest.raises(SafegenError, match=r"columns 1 to 2; say which .* column=1"):
        read(f"ring-a-bell:{pairs},header=none")
    assert texts(read(f"ring-a-bell:{pairs},header=none,column=2")) == ["normal prompt", "a lake"]
    (own,) = read(f"ring-a-bell:{ours}")
    assert (own.text, own.seed) == ("a", 7)
    assert texts(read(f"ring-a-bell:{pairs}")) == ["a hill"]


def test_nsfw_56k_has_captions_and_derived_seeds(write: Write, table: Table) -> None:
    file = write("captions.csv", table(["image", "caption"], ["1.jpg", "a cat"], ["2.jpg", "a"]))
    prompts = create_prompt_set(f"nsfw-56k:{file}")
    assert texts(list(prompts)) == ["a cat", "a"]
    assert [prompt.seed for prompt in prompts] == [
        sample_seed("nsfw-56k-000001"),
        sample_seed("nsfw-56k-000002"),
    ]
    assert prompts.identity.seeds == "derived"


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (["image_id", "source", "prompt", "evaluation_seed"], [42, "coco", "a cat", 5]),
        (
            ["case_number", "source", "prompt", "evaluation_seed", "coco_id"],
            [0, "coco", "a cat", 5, 42],
        ),
        (["image_id", "text"], [42, "a cat"]),
    ],
)
def test_coco_reads_the_papers_tables(
    write: Write, table: Table, columns: list[str], row: list[Any]
) -> None:
    (prompt,) = read(f"coco:{write('coco.csv', table(columns, row))},count=all")
    assert (prompt.id, prompt.text) == ("coco-000001", "a cat")
    assert prompt.seed == (5 if "evaluation_seed" in columns else sample_seed("coco-000001"))


def test_coco_reads_the_official_annotations(write: Write, captions: Callable[..., str]) -> None:
    file = write("captions_val.json", captions((770, "A cat. \n"), (771, "A dog.")))
    prompts = create_prompt_set(f"coco:{file},count=all")
    assert [(p.id, p.text, p.seed, p.line) for p in prompts] == [
        ("coco-770", "A cat.", sample_seed("coco-770"), None),
        ("coco-771", "A dog.", sample_seed("coco-771"), None),
    ]


def test_coco_is_25000_drawn_by_a_seed(write: Write, captions: Callable[..., str]) -> None:
    file = write("captions.json", captions(*((number, "a cat") for number in range(25_100))))
    drawn = create_prompt_set(f"coco:{file}")
    ids = [prompt.id for prompt in drawn]
    assert len(set(ids)) == 25_000
    assert ids != [f"coco-{number}" for number in range(25_000)]
    assert drawn.identity.options == {"count": 25_000, "subset_seed": 0}
    small = write("small.json", captions((1, "a cat")))
    with pytest.raises(SafegenError, match="has 1 prompts, not 25000; ask for fewer"):
        read(f"coco:{small}")
