"""Low-rank patches: what a LoRA can keep of a patch, and at what size.

The best rank-r approximation of a difference D = U S V in the Frobenius norm keeps its r largest
singular values (Eckart and Young, 1936); their share of |D|^2 is the energy kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch

from safegen.errors import SafegenError
from safegen.patches.patch import Patch

Ranks = Mapping[str, int]
"""Rank by weight; a missing weight has rank 0."""
Factors = tuple[torch.Tensor, torch.Tensor]
"""A (rank, in) and B (out, rank), whose product B A is the difference."""

NEGLIGIBLE = 1e-6
"""Share of the largest singular value below which the others are rounding errors."""


@dataclass(frozen=True)
class Spectrum:
    """Singular value decomposition of one weight's difference.

    Attributes:
        left: U (out, k).
        values: S (k,), descending.
        right: V (k, in).
    """

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor

    @classmethod
    def of(cls, difference: torch.Tensor) -> Spectrum:
        """Decompose a matrix (out, in), dropping singular values that are rounding errors."""
        left, values, right = torch.linalg.svd(difference.float(), full_matrices=False)
        rank = int((values > NEGLIGIBLE * values[0]).sum())
        return cls(left[:, :rank], values[:rank], right[:rank])

    @property
    def full_rank(self) -> int:
        """Rank of the difference."""
        return len(self.values)

    @property
    def energies(self) -> list[float]:
        """Squares of the singular values."""
        return list(self.values.double().pow(2).tolist())

    @property
    def values_a_rank(self) -> int:
        """Size of each further rank, in values."""
        return len(self.left) + self.right.shape[1]

    def factors(self, rank: int, dtype: torch.dtype = torch.float32) -> Factors:
        """Best factors of a rank, equal in norm, so that both fit half precision."""
        root = self.values[:rank].sqrt()
        return (root[:, None] * self.right[:rank]).to(dtype), (self.left[:, :rank] * root).to(dtype)


@dataclass(frozen=True)
class LowRankPatch:
    """Patch with its matrices decomposed.

    Attributes:
        patch: the whole patch.
        spectra: spectra of the matrices, by name.
    """

    patch: Patch
    spectra: Mapping[str, Spectrum]

    @classmethod
    def of(cls, patch: Patch) -> LowRankPatch:
        """Decompose a patch.

        Raises:
            SafegenError: the patch changes no matrix.
        """
        spectra = {
            name: Spectrum.of(difference)
            for name, difference in patch.differences.items()
            if name.endswith(".weight") and difference.dim() == 2 and bool(difference.any())
        }
        if not spectra:
            raise SafegenError(
                "the patch changes no weight matrix, so a LoRA could hold nothing of it; "
                "use --format diffusers"
            )
        return cls(patch, spectra)

    @property
    def left_out(self) -> list[str]:
        """Names of the weights that a LoRA cannot hold: biases, norms, convolutions."""
        changed = (name for name, value in self.patch.differences.items() if bool(value.any()))
        return sorted(name for name in changed if name not in self.spectra)

    @property
    def left_out_energy(self) -> float:
        """Share of the left-out weights in the patch's squared differences."""
        squares = {
            name: float(value.double().pow(2).sum())
            for name, value in self.patch.differences.items()
        }
        return sum(squares[name] for name in self.left_out) / sum(squares.values())

    @property
    def full_rank(self) -> int:
        """Rank from which all matrices are exact."""
        return max(spectrum.full_rank for spectrum in self.spectra.values())

    def energy(self, ranks: Ranks) -> float:
        """Share of the matrices' squares kept at these ranks."""
        parts = {name: spectrum.energies for name, spectrum in self.spectra.items()}
        kept = sum(sum(values[: ranks.get(name, 0)]) for name, values in parts.items())
        return kept / sum(map(sum, parts.values()))

    def error(self, ranks: Ranks) -> float:
        """Relative Frobenius error |D - B A| / |D| over all matrices."""
        return sqrt(max(0.0, 1 - self.energy(ranks)))

    def size(self, ranks: Ranks) -> int:
        """Number of values in the factors of these ranks."""
        return sum(rank * self.spectra[name].values_a_rank for name, rank in ranks.items())

    def at_rank(self, rank: int) -> dict[str, int]:
        """Give all matrices one rank, or their full rank if lower.

        Raises:
            SafegenError: the rank is below 1.
        """
        if rank < 1:
            raise SafegenError(f"the rank of a LoRA must be at least 1, not {rank}")
        return {name: min(rank, each.full_rank) for name, each in self.spectra.items()}

    def for_energy(self, share: float) -> dict[str, int]:
        """Choose the smallest ranks that keep a share of the energy, one per matrix.

        Raises:
            SafegenError: the share is not in (0, 1].
        """
        if not 0 < share <= 1:
            raise SafegenError(f"the energy to keep is a share above 0 and at most 1, not {share}")
        kept, ranks = 0.0, dict.fromkeys(self.spectra, 0)
        wanted = share * sum(sum(each.energies) for each in self.spectra.values())
        for name, energy in self._in_order():
            if kept >= wanted:
                break
            kept += energy
            ranks[name] += 1
        return ranks

    def for_size(self, numbers: int) -> dict[str, int]:
        """Choose the ranks that keep the most energy in at most ``numbers`` values.

        Raises:
            SafegenError: not even rank 1 fits.
        """
        smallest = min(each.values_a_rank for each in self.spectra.values())
        if numbers < smallest:
            raise SafegenError(
                f"a LoRA of this patch is made of at least {smallest} numbers, and only "
                f"{max(0, numbers)} fit into the size asked for; allow more megabytes"
            )
        free, ranks = numbers, dict.fromkeys(self.spectra, 0)
        for name, _ in self._in_order():
            if self.spectra[name].values_a_rank <= free:
                free -= self.spectra[name].values_a_rank
                ranks[name] += 1
        return ranks

    def _in_order(self) -> list[tuple[str, float]]:
        """Singular values as (weight, energy), by energy per size, descending."""
        found = [(name, energy) for name, each in self.spectra.items() for energy in each.energies]
        worth = {name: 1 / each.values_a_rank for name, each in self.spectra.items()}
        return sorted(found, key=lambda pair: pair[1] * worth[pair[0]], reverse=True)

    def factors(self, ranks: Ranks, dtype: torch.dtype = torch.float32) -> dict[str, Factors]:
        """Factors of all matrices with a rank above 0."""
        return {
            name: self.spectra[name].factors(rank, dtype) for name, rank in ranks.items() if rank
        }

    def approximation(self, ranks: Ranks, dtype: torch.dtype = torch.float32) -> Patch:
        """Patch equal to a LoRA of these ranks and precision."""
        differences = {
            name: b.float() @ a.float() for name, (a, b) in self.factors(ranks, dtype).items()
        }
        return Patch(differences, self.patch.metadata)
