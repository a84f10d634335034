from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import safegen
from safegen.editing import rehearsal, teacher
from safegen.editing.conditions import Conditions
from safegen.editing.latents import TripletLatents
from safegen.editing.objective import clean_latent_loss
from safegen.editing.optimizers import Optimizers
from safegen.editing.processes import Processes
from safegen.editing.run import plan
from safegen.editing.run_folder import CHECKPOINT, read_records
from safegen.editing.settings import EditSettings, Mixture
from safegen.editing.trainer import Edit
from safegen.errors import SafegenError
from safegen.models.anatomy import Scope, scope_names
from safegen.models.prediction import add_noise, prediction_of, signal_and_noise
from safegen.version import code_versions

QUICK = EditSettings.of(steps=6, unsafe_batch=2, warmup_steps=1, checkpoint_every=2)
MIXED = Mixture(empty=0.4, random=0.3, caption=0.3)


def _weights(pipeline: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in pipeline.unet.named_parameters()}


@pytest.mark.parametrize("scope", get_args(Scope))
def test_patch_changes_all_of_its_scope_and_nothing_else(
    tiny_pipeline: Any, tiny_latents: TripletLatents, scope: Scope
) -> None:
    before = _weights(tiny_pipeline)
    patch = safegen.edit(tiny_pipeline, tiny_latents, QUICK.changed(scope=scope))
    assert sorted(patch.differences) == scope_names(tiny_pipeline.unet, scope)
    assert all(".attn1." in name for name in patch.differences) == (scope == "self-attention")
    assert not [name for name in patch.differences if ".attn2." in name]
    after_edit = _weights(tiny_pipeline)
    assert all(torch.equal(before[name], after_edit[name]) for name in before)
    safegen.apply(tiny_pipeline, patch)
    changed = {n for n, w in _weights(tiny_pipeline).items() if not torch.equal(w, before[n])}
    assert changed == set(patch.differences)


@pytest.mark.parametrize("objective", ["exact", "paper"])
@pytest.mark.parametrize("preservation", ["teacher", "noise"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_redirect_loss_falls(
    build_pipeline: Callable[..., Any],
    tiny_latents: TripletLatents,
    objective: Any,
    preservation: Any,
    prediction_type: str,
) -> None:
    settings = EditSettings.of(
        objective=objective,
        preserve_target=preservation,
        preserve_weight=1.5,
        steps=60,
        unsafe_batch=8,
        redirect_mixture=MIXED,
        preserve_mixture=MIXED,
        guidance_scale=1.0 if objective == "paper" else 5.0,
        interpolation_range=(1.0, 1.0),
    )
    pipeline = build_pipeline(prediction_type=prediction_type)
    losses = [record.redirect for record in Edit(pipeline, tiny_latents, settings).run()]
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])


def test_adversaries_bring_the_unsafe_back_better_than_they_began(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    only = Mixture(empty=0.0, adversarial=1.0)
    settings = QUICK.changed(steps=60, unsafe_batch=12, step_size=1e-9, redirect_mixture=only)
    edit = Edit(tiny_pipeline, tiny_latents, settings)
    began = Conditions(tiny_pipeline, (), settings.seed).adversaries["hidden"]
    for _ in edit.run():
        pass
    assert edit.state is not None
    ended = edit.state.conditions.adversaries["hidden"]

    def distance(conditions: torch.Tensor) -> float:
        unsafe, scheduler = tiny_latents.unsafe[:1], tiny_pipeline.scheduler
        count = len(conditions)
        timesteps = torch.full((count,), 300)
        a, s = signal_and_noise(scheduler, timesteps)
        noise = torch.randn(unsafe.shape, generator=torch.Generator().manual_seed(0))
        clean = unsafe.expand(count, -1, -1, -1)
        z_t = add_noise(clean, noise, a, s)
        with torch.no_grad():
            output = tiny_pipeline.unet(z_t, timesteps, conditions).sample
        kind = prediction_of(scheduler)
        return float(clean_latent_loss(output, z_t, clean, a, s, kind, 1.0).mean())

    assert distance(ended) < distance(began)
    lengths = [table.norm(dim=-1) for table in (began, ended)]
    torch.testing.assert_close(*lengths)


def test_teacher_preservation_starts_at_zero(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    first = next(Edit(tiny_pipeline, tiny_latents, QUICK).run())
    assert first.redirect > 0.01
    assert first.preserve < 1e-8 * first.redirect


def test_same_seed_same_patch_and_another_seed_another(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents
) -> None:
    def run(seed: int) -> dict[str, torch.Tensor]:
        settings = QUICK.changed(seed=seed)
        return safegen.edit(build_pipeline(), tiny_latents, settings).differences

    first, again, other = run(0), run(0), run(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resumes_to_the_same_bits(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents, tmp_path: Path, optimizer: Any
) -> None:
    quick = QUICK.changed(optimizer=optimizer)
    whole = safegen.edit(build_pipeline(), tiny_latents, quick, run_folder=tmp_path / "whole")
    broken = Edit(build_pipeline(), tiny_latents, quick, run_folder=tmp_path / "broken").run()
    for _ in range(4):  # past the checkpoint at 2, into step 4, which is then lost
        next(broken)
    broken.close()
    resumed = safegen.edit(build_pipeline(), tiny_latents, quick, run_folder=tmp_path / "broken")
    for name, difference in whole.differences.items():
        assert torch.equal(difference, resumed.differences[name])
    records = [read_records(tmp_path / run) for run in ("whole", "broken")]
    losses = [[(r.step, r.loss, r.redirect, r.preserve) for r in run] for run in records]
    assert losses[0] == losses[1]
    assert [step for step, *_ in losses[0]] == list(range(1, quick.optimisation.steps + 1))


def test_checkpoint_of_other_settings_is_refused(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents, tmp_path: Path
) -> None:
    safegen.edit(build_pipeline(), tiny_latents, QUICK, run_folder=tmp_path)
    other = QUICK.changed(step_size=0.02)
    with pytest.raises(SafegenError, match="another model, triplets or settings"):
        safegen.edit(build_pipeline(), tiny_latents, other, run_folder=tmp_path)


def test_checkpoint_of_other_code_is_refused(
    build_pipeline: Callable[..., Any],
    tiny_latents: TripletLatents,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = Edit(build_pipeline(), tiny_latents, QUICK, run_folder=tmp_path).run()
    for _ in range(3):  # past the checkpoint at 2
        next(broken)
    broken.close()
    made_by = code_versions(("torch", "diffusers", "transformers"))
    monkeypatch.setattr(
        "safegen.editing.run_folder.code_versions", lambda _: {**made_by, "torch": "1.0"}
    )
    with pytest.raises(SafegenError, match=r"torch is .* there and 1\.0 here.*delete the folder"):
        safegen.edit(build_pipeline(), tiny_latents, QUICK, run_folder=tmp_path)


def test_a_finished_run_is_read_and_a_damaged_one_is_refused_before_any_step(
    tiny_pipeline: Any, tiny_latents: TripletLatents, tmp_path: Path
) -> None:
    taken: list[int] = []

    def again() -> Any:
        return safegen.edit(
            tiny_pipeline, tiny_latents, QUICK, run_folder=tmp_path,
            on_record=lambda record: taken.append(record.step),
        )  # fmt: skip

    patch = again()
    steps = list(range(1, QUICK.optimisation.steps + 1))
    assert taken == steps
    finished = again()
    assert taken == steps
    assert finished.differences.keys() == patch.differences.keys()
    assert all(torch.equal(patch.differences[n], d) for n, d in finished.differences.items())
    (tmp_path / CHECKPOINT).write_bytes(b"damaged")
    with pytest.raises(SafegenError, match=rf"{CHECKPOINT}: truncated or no safetensors"):
        again()
    assert taken == steps


def test_writes_a_log_that_tensorboard_reads(
    tiny_pipeline: Any, tiny_latents: TripletLatents, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    safegen.edit(tiny_pipeline, tiny_latents, QUICK, run_folder=tmp_path)
    (events,) = tmp_path.rglob("events.out.tfevents*")
    log = EventAccumulator(str(events.parent))
    log.Reload()
    assert [event.step for event in log.Scalars("redirect")] == list(
        range(1, QUICK.optimisation.steps + 1)
    )


def _everything(pipeline: Any) -> dict[str, Any]:
    """All that an edit might leave changed on a pipeline."""
    found: dict[str, Any] = {}
    for part in ("unet", "vae", "text_encoder"):
        for name, module in getattr(pipeline, part).named_modules():
            found[f"{part} {name}"] = (type(module), sorted(vars(module)), module.training)
        for name, weight in getattr(pipeline, part).named_parameters():
            bits = weight.detach().flatten().view(torch.uint8).numpy().tobytes()
            kept = weight.dtype, weight.device, weight.requires_grad, weight.grad is None
            found[f"{part} {name}"] = bits, weight.data_ptr(), kept
    return found


FORMS: dict[str, dict[str, Any]] = {
    "whole": {"optimizer": "muon", "gradient_checkpointing": "full", "rehearsal_share": 0.5},
    "half": {"precision": "bf16", "optimizer": "muon"},
    # The first steps of fp16 are left out until its loss scale fits.
    "factors": {"lora_rank": 3, "precision": "fp16", "steps": 24},
}
ENDS = ["finished", "closed", "nothing changed", "not a number", "teacher", "step"]


@pytest.mark.parametrize(
    ("form", "end"),
    [
        *(("whole", end) for end in ENDS),
        *(("half", end) for end in ("finished", "step")),
        *(("factors", end) for end in ("finished", "closed", "teacher")),
    ],
)
def test_the_pipeline_is_as_it_was_however_the_edit_ends(
    tiny_pipeline: Any,
    tiny_latents: TripletLatents,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    end: str,
) -> None:
    if form == "factors":
        pytest.importorskip("peft")
    if form != "whole":
        tiny_pipeline.unet.to(torch.float16)
        tiny_pipeline.unet.conv_in.requires_grad_(False)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rehearsal, "EVERY", 2)
    settings, error = QUICK.changed(**{"steps": 4, **FORMS[form]}), ""
    if end == "not a number":
        tiny_pipeline.unet.conv_out.bias.data.fill_(float("nan"))
        error = "the loss is nan"
    before = _everything(tiny_pipeline)
    if end == "step":
        monkeypatch.setattr(Optimizers, "step", interrupt)
    if end == "nothing changed":
        monkeypatch.setattr(Optimizers, "step", lambda *_: None)
    if end == "teacher":
        monkeypatch.setattr(teacher, "predict", interrupt)  # while the weights are the original's
    edit = Edit(tiny_pipeline, tiny_latents, settings)
    with pytest.raises(BaseException, match=error or None) if end in ENDS[3:] else nullcontext():
        for record in (records := edit.run()):
            if end == "closed" and record.step == 3:
                records.close()
    after = _everything(tiny_pipeline)
    if form != "whole":  # what was in another precision waited elsewhere
        before, after = ({n: (v[0], *v[2:]) for n, v in each.items()} for each in (before, after))
    assert after == before
    if end == "finished":
        assert {d.dtype for d in edit.patch().differences.values()} == {torch.float32}
    else:
        with pytest.raises(SafegenError, match=r"not come to its end|left \d+ of its weights"):
            edit.patch()


def test_an_edit_is_where_its_model_is_whatever_came_before() -> None:
    for place in ("cpu", "meta", "cpu"):
        with Processes(torch.device(place)) as processes:
            assert processes.device.type == place


def test_model_without_self_attention_is_refused(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents
) -> None:
    with pytest.raises(SafegenError, match="multiplies image tokens alone"):
        safegen.edit(build_pipeline(cross_only=True), tiny_latents, QUICK)


def test_triplets_of_another_autoencoder_are_refused(
    build_pipeline: Callable[..., Any], tiny_latents: TripletLatents
) -> None:
    with pytest.raises(SafegenError, match="another autoencoder"):
        safegen.edit(build_pipeline(seed=5), tiny_latents, QUICK)


def test_plan_counts_what_the_edit_would_do_and_leaves_the_model_as_it_was(
    tiny_pipeline: Any, tiny_latents: TripletLatents
) -> None:
    before = _everything(tiny_pipeline)
    told = plan(tiny_pipeline, tiny_latents, QUICK)
    names = scope_names(tiny_pipeline.unet, "self-attention")
    sizes = {name: weight.numel() for name, weight in tiny_pipeline.unet.named_parameters()}
    assert told.names == names
    assert told.trained == sum(sizes[name] for name in names)
    assert 0 < told.trained < told.total
    assert told.step_seconds > 0 == told.rehearsal_seconds
    rehearsed = QUICK.changed(steps=81, rehearsal_share=0.5, preserve_target="noise")
    told = plan(tiny_pipeline, tiny_latents, rehearsed)
    assert told.step_seconds / 20 < told.rehearsal_seconds < told.seconds
    assert _everything(tiny_pipeline) == before
