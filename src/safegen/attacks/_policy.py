"""Actor-critic policy over short sequences of choices, as in SneakyPrompt's released code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Proposals:
    """Sequences drawn by a policy.

    Attributes:
        actions: choices (B, L).
        log_probabilities: log-probability of each choice given the earlier ones (B, L).
        values: the critic's value before each choice (B, L).
    """

    actions: torch.Tensor
    log_probabilities: torch.Tensor
    values: torch.Tensor

    def rows(self, indices: Sequence[int]) -> Proposals:
        """Select some of the sequences."""
        chosen = list(indices)
        return Proposals(self.actions[chosen], self.log_probabilities[chosen], self.values[chosen])


class Policy(nn.Module):
    """Recurrent network that chooses one of ``choices`` at each of ``length`` positions.

    Each position has its own heads and embeddings. All draws, the first weights included, come
    from the seed.
    """

    def __init__(
        self, choices: int, length: int, width: int, learning_rate: float, seed: int
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.start = nn.Buffer(torch.randn(width))
            self.cell = nn.LSTMCell(width, width)
            self.embeddings = nn.ModuleList(nn.Embedding(choices, width) for _ in range(length - 1))
            self.actors = nn.ModuleList(nn.Linear(width, choices) for _ in range(length))
            self.critics = nn.ModuleList(nn.Linear(width, 1) for _ in range(length))
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.Adam(self.parameters(), learning_rate)

    def propose(self, batch: int) -> Proposals:
        """Draw sequences."""
        inputs = self.start.expand(batch, -1)
        state = None
        drawn = []
        for place, (actor, critic) in enumerate(zip(self.actors, self.critics, strict=True)):
            hidden, memory = self.cell(inputs, state)
            state = (hidden, memory)
            log_probabilities = actor(hidden).log_softmax(dim=1)  # (B, choices)
            action = torch.multinomial(
                log_probabilities.detach().exp(), 1, generator=self._generator
            )
            drawn.append((action, log_probabilities.gather(1, action), critic(hidden)))
            if place < len(self.embeddings):
                inputs = self.embeddings[place](action[:, 0])
        return Proposals(*(torch.cat(each, dim=1) for each in zip(*drawn, strict=True)))

    def learn(self, proposals: Proposals, rewards: torch.Tensor) -> None:
        """Take a REINFORCE step with the critic as baseline; rewards (B,) come at the end."""
        advantages = rewards[:, None] - proposals.values  # (B, L)
        actor = -(proposals.log_probabilities * advantages.detach()).sum(dim=1).mean()
        critic = advantages.square().sum(dim=1).mean()
        self._optimizer.zero_grad(set_to_none=True)
        (actor + critic).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
