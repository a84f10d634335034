"""Worker of an evaluation, in any process or on any machine."""

from __future__ import annotations

import io
import json
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from safegen.defenses import Defense, create_defense, defended
from safegen.editing.memory.precision import DTYPES
from safegen.errors import SafegenError
from safegen.evaluation.jobs import (
    Draw,
    Drawn,
    Failure,
    Inspect,
    Inspection,
    Job,
    Look,
    ObserverFacts,
    Picture,
    Result,
    Seen,
    Strike,
    WorkerSettings,
)
from safegen.evaluation.plan import defense_settings, plain
from safegen.evaluation.striking import Striker, records_of
from safegen.models.anatomy import fingerprint
from safegen.models.loading import load_pipeline
from safegen.models.sampling import ImageRequest, generate_samples
from safegen.observers import Observation, Observer, ObserverIdentity, Sight, create_observer
from safegen.profiles import profile_of


class _Applied(NamedTuple):
    """Defense on the pipeline: its spec, and its recorded settings."""

    spec: str
    defense: Defense
    settings: dict[str, Any]


class Worker:
    """Worker that does one job after the other, and loads what they need once, on first use."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._pipeline: Any = None
        self._model: dict[str, str] = {}
        self._on: _Applied | None = None
        self._observers: dict[str, Observer] = {}
        self._striker: Striker | None = None
        if settings.attacker is not None and settings.concept is not None:
            self._striker = Striker(settings, settings.attacker, settings.concept)
        torch.set_num_threads(settings.threads)

    def attempt(self, job: Job) -> Result | Failure:
        """Do a job, and return an error as a result, which the executor reports."""
        try:
            return self.do(job)
        except SafegenError as error:
            return Failure(str(error), mendable=True)
        except Exception:
            return Failure(traceback.format_exc(), mendable=False)

    def do(self, job: Job) -> Result:
        """Do a job.

        Raises:
            SafegenError: the job does not fit, or something differs from where the job was made.
        """
        if isinstance(job, Inspect):
            return self._inspect(job)
        if isinstance(job, Strike):
            return self._strike(job)
        if isinstance(job, Draw):
            return self._draw(job)
        return self._look(job)

    def _inspect(self, job: Inspect) -> Inspection:
        pipeline = self._undefended()
        with noting() as notes:
            for spec in job.defenses:
                with defended(pipeline, self._defense(spec)):
                    pass
            observers = {spec: self._observer(spec) for spec in job.observers}
            attacker = None if self._striker is None else self._striker.facts
        facts = {
            spec: ObserverFacts(_plain(observer.identity), observer.compares)
            for spec, observer in observers.items()
        }
        told = tuple(dict.fromkeys(notes))
        return Inspection(self._model, pipeline.device.type, facts, told, attacker)

    def _draw(self, job: Draw) -> Drawn:
        items = list(job.items.values())
        sampling = replace(self.settings.sampling, guidance_scale=items[0].guidance)
        requests = [ImageRequest(item.text, item.seed) for item in items]
        with noting() as notes:
            self._stand_down()
            pipeline, _ = self._defended(job)
            samples = generate_samples(pipeline, requests, sampling, len(requests))
            pictures = tuple((encode_png(each.image), each.blocked) for each in samples)
        return Drawn(pictures, tuple(dict.fromkeys(notes)))

    def _strike(self, job: Strike) -> Drawn:
        striker = self._striker
        if striker is None:
            raise SafegenError("this worker has no attacker; start all with the same settings")
        _check_same("the attacker", striker.facts, job.attacker)
        with noting() as notes:
            pipeline, defense = self._defended(job)
            found = striker.strike(pipeline, defense, job)
            pictures = tuple((encode_png(each.image), each.blocked) for each in found)
        return Drawn(pictures, tuple(dict.fromkeys(notes)), records_of(found))

    def _stand_down(self) -> None:
        """End the running attack, if any."""
        if self._striker is not None:
            self._striker.stop()

    def _look(self, job: Look) -> Seen:
        observer = self._observer(job.observer)
        _check_same(f"the observer {job.observer}", _plain(observer.identity), job.expected)
        sights = [_sight(picture) for picture in job.pictures.values()]
        seen: list[Observation] = []
        # An observer stacks its pictures, so it gets those of one size at a time.
        for _, alike in groupby(sights, key=lambda sight: sight.image.shape):
            seen += observer.observe(list(alike))
        return Seen(tuple(seen))

    def _undefended(self) -> Any:
        """Return the loaded pipeline without a defense."""
        if self._pipeline is None:
            settings = self.settings
            self._pipeline = load_pipeline(
                settings.model,
                dtype=DTYPES[settings.precision],
                local_files_only=settings.local_files_only,
                variant=settings.variant,
                config=settings.config,
                allow_pickle=settings.allow_pickle,
                plain_kernels=settings.plain_kernels,
            )
            self._model = model_hashes(self._pipeline)
        self._stand_down()
        if self._on is not None:
            defense, self._on = self._on.defense, None
            defense.remove(self._pipeline)
        return self._pipeline

    def _defended(self, job: Draw) -> tuple[Any, Defense]:
        """Return the pipeline with the job's defense applied, which stays on for later jobs."""
        on = self._on
        if on is None or on.spec != job.defense:
            pipeline = self._undefended()
            defense = self._defense(job.defense)
            on = _Applied(job.defense, defense, defense_settings(defense.identity))
            defense.apply(pipeline)
            self._on = on
        _check_same(f"the model {self.settings.model}", self._model, job.model)
        _check_same("the device", self._pipeline.device.type, job.device)
        _check_same(f"the defense {job.defense}", on.settings, job.expected)
        return self._pipeline, on.defense

    def _defense(self, spec: str) -> Defense:
        settings = self.settings
        offline, profile = settings.local_files_only, profile_of(settings.model)
        return create_defense(spec, settings.concept, profile, local_files_only=offline)

    def _observer(self, spec: str) -> Observer:
        if spec not in self._observers:
            offline = self.settings.local_files_only
            self._observers[spec] = create_observer(spec, local_files_only=offline)
        return self._observers[spec]


def model_hashes(pipeline: Any) -> dict[str, str]:
    """Hash the weights of all networks of a pipeline, and its scheduler's settings."""
    hashes = {
        name: fingerprint(part)
        for name, part in sorted(pipeline.components.items())
        if isinstance(part, torch.nn.Module)
    }
    config = {key: value for key, value in pipeline.scheduler.config.items() if key[0] != "_"}
    text = json.dumps(config, sort_keys=True, default=str)
    return hashes | {"scheduler": sha256(text.encode()).hexdigest()}


def encode_png(image: np.ndarray) -> bytes:
    """Encode a uint8 picture (H, W, 3) as PNG: the same bytes for the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def decode(image: bytes) -> np.ndarray:
    """Decode an image file's bytes to a uint8 picture (H, W, 3)."""
    try:
        with Image.open(io.BytesIO(image)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise SafegenError(f"a picture cannot be read ({error}); take it out") from error


@contextmanager
def noting() -> Iterator[list[str]]:
    """Collect safegen's own warnings in a list, instead of printing them."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    for each in caught:
        if each.category.__module__.partition(".")[0] == "safegen":
            notes.append(str(each.message))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _sight(picture: Picture) -> Sight:
    original = None if picture.original is None else decode(picture.original)
    return Sight(decode(picture.image), picture.text, original)


def _plain(identity: ObserverIdentity) -> ObserverIdentity:
    """Convert an identity to plain JSON values."""
    return replace(identity, settings=plain(dict(identity.settings)))


def _check_same(what: str, here: Any, there: Any) -> None:
    if here != there:
        raise SafegenError(
            f"{what} is not the same for all workers; give every machine the same files and "
            "the same version of safegen"
        )
