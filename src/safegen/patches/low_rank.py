"""Patches as products of small matrices: what a LoRA can hold of one, and at what size.

The best rank-r approximation of a difference D = U S V in the Frobenius norm keeps its r largest
singular values (Eckart and Young, 1936), and the share of |D|^2 that they have is its energy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch

from safegen.errors import SafegenError
from safegen.patches.patch import Patch

Ranks = Mapping[str, int]
"""By weight; one that is not named has rank 0."""
Factors = tuple[torch.Tensor, torch.Tensor]
"""A (rank, in) and B (out, rank), whose product B A is the difference."""

NEGLIGIBLE = 1e-6
"""Singular values below this share of the largest one are rounding errors."""


@dataclass(frozen=True)
class Spectrum:
    """The singular value decomposition of one weight's difference.

    Attributes:
        left: U (out, k).
        values: S (k,), falling.
        right: V (k, in).
    """

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor

    @classmethod
    def of(cls, difference: torch.Tensor) -> Spectrum:
        """Of a matrix (out, in), without singular values that are rounding errors."""
        left, values, right = torch.linalg.svd(difference.float(), full_matrices=False)
        rank = int((values > NEGLIGIBLE * values[0]).sum())
        return cls(left[:, :rank], values[:rank], right[:rank])

    @property
    def full_rank(self) -> int:
        """The rank of the difference."""
        return len(self.values)

    @property
    def energies(self) -> list[float]:
        """The squares of the singular values."""
        return list(self.values.double().pow(2).tolist())

    @property
    def values_a_rank(self) -> int:
        """Numbers that each further rank takes."""
        return len(self.left) + self.right.shape[1]

    def factors(self, rank: int, dtype: torch.dtype = torch.float32) -> Factors:
        """The best factors of a rank, of like size, so that neither leaves half precision."""
        root = self.values[:rank].sqrt()
        return (root[:, None] * self.right[:rank]).to(dtype), (self.left[:, :rank] * root).to(dtype)


@dataclass(frozen=True)
class LowRankPatch:
    """A patch taken apart.

    Attributes:
        patch: the whole.
        spectra: of the weights that are matrices, by name.
    """

    patch: Patch
    spectra: Mapping[str, Spectrum]

    @classmethod
    def of(cls, patch: Patch) -> LowRankPatch:
        """Take a patch apart.

        Raises:
            SafegenError: it changes no matrix.
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
        """Names of what a LoRA cannot hold: biases, norms, convolutions."""
        changed = (name for name, value in self.patch.differences.items() if bool(value.any()))
        return sorted(name for name in changed if name not in self.spectra)

    @property
    def left_out_energy(self) -> float:
        """Their share of all the patch changes, in squares."""
        squares = {
            name: float(value.double().pow(2).sum())
            for name, value in self.patch.differences.items()
        }
        return sum(squares[name] for name in self.left_out) / sum(squares.values())

    @property
    def full_rank(self) -> int:
        """The rank from which on nothing of any matrix is lost."""
        return max(spectrum.full_rank for spectrum in self.spectra.values())

    def energy(self, ranks: Ranks) -> float:
        """The share of the matrices' squares that is kept at these ranks."""
        parts = {name: spectrum.energies for name, spectrum in self.spectra.items()}
        kept = sum(sum(values[: ranks.get(name, 0)]) for name, values in parts.items())
        return kept / sum(map(sum, parts.values()))

    def error(self, ranks: Ranks) -> float:
        """|D - B A| / |D| over all matrices, the relative error in the Frobenius norm."""
        return sqrt(max(0.0, 1 - self.energy(ranks)))

    def size(self, ranks: Ranks) -> int:
        """Numbers that the factors of these ranks are made of."""
        return sum(rank * self.spectra[name].values_a_rank for name, rank in ranks.items())

    def at_rank(self, rank: int) -> dict[str, int]:
        """The same rank for all matrices, or their full one where that is lower.

        Raises:
            SafegenError: the rank is below 1.
        """
        if rank < 1:
            raise SafegenError(f"the rank of a LoRA must be at least 1, not {rank}")
        return {name: min(rank, each.full_rank) for name, each in self.spectra.items()}

    def for_energy(self, share: float) -> dict[str, int]:
        """Ranks that keep a share of the energy in the least space, each matrix with its own.

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
        """Ranks that keep the most energy in no more than so many numbers.

        Raises:
            SafegenError: not even one rank fits.
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
        """Every singular value as (weight, energy), from the one that is most worth its space."""
        found = [(name, energy) for name, each in self.spectra.items() for energy in each.energies]
        worth = {name: 1 / each.values_a_rank for name, each in self.spectra.items()}
        return sorted(found, key=lambda pair: pair[1] * worth[pair[0]], reverse=True)

    def factors(self, ranks: Ranks, dtype: torch.dtype = torch.float32) -> dict[str, Factors]:
        """The factors of all matrices of a rank above 0."""
        return {
            name: self.spectra[name].factors(rank, dtype) for name, rank in ranks.items() if rank
        }

    def approximation(self, ranks: Ranks, dtype: torch.dtype = torch.float32) -> Patch:
        """What a LoRA of these ranks and this precision does, as a patch."""
        differences = {
            name: b.float() @ a.float() for name, (a, b) in self.factors(ranks, dtype).items()
        }
        return Patch(differences, self.patch.metadata)
