"""Drawing of the lab's pictures, the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safegen.lab.profile import LAB
from safegen.models.sampling import ImageRequest, SamplingSettings, generate
from safegen.profiles import profile_for
from safegen.prompts import Prompt

SAMPLING = SamplingSettings(**LAB.sampling)


def draw_prompts(pipeline: Any, prompts: Sequence[Prompt]) -> list[np.ndarray]:
    """Draw one picture per prompt, uint8 (64, 64, 3), from the prompt's own seed.

    Sampling is what is usual for the pipeline's model; the lab's for an unknown one.
    """
    sampling = SamplingSettings(**(profile_for(pipeline) or LAB).sampling)
    requests = [ImageRequest(prompt.text, prompt.seed) for prompt in prompts]
    return [image for _, image in generate(pipeline, requests, sampling, batch_size=64)]
