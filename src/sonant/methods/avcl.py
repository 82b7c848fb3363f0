"""AVCL: fusion, alignment and contrast of sight and sound (Lan, Liu, Lin, 2022)."""

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonant.distributed import gather
from sonant.errors import UsageError, above_zero, at_least
from sonant.media.text import Tokenizer
from sonant.methods.films import SIGHT_SOUND, Films
from sonant.methods.method import Mapped, Method, Recipe, at_least_fp32, drawn_by
from sonant.methods.parts import Parts, small
from sonant.objectives import cross_correlation, self_contrast
from sonant.types import Batch, Layer, Modality, Stage


class Fusion(nn.Module):
    """AMFM: one gate a clip, made of both modalities, for the channels of both (eqs. 1 to 4).

    Z = W_s [v, a] + b_s, E = W_e Z + b_e, f_v = ReLU(E) ⊙ v, f_a = ReLU(E) ⊙ a. There is nothing
    between the two layers, and the gate is a ReLU: it silences channels, and has no upper end.

    Args:
        width: of each modality's features.
        joint: of Z, c_u in the paper, which does not say how many.
    """

    def __init__(self, width: int, joint: int) -> None:
        super().__init__()
        at_least(1, width=width, joint=joint)
        self.squeeze = nn.Linear(2 * width, joint)
        self.excite = nn.Linear(joint, width)

    def forward(
        self, v: Float[Tensor, "clips width"], a: Float[Tensor, "clips width"]
    ) -> tuple[Float[Tensor, "clips width"], Float[Tensor, "clips width"]]:
        """Gate both."""
        gate = F.relu(self.excite(self.squeeze(torch.cat([v, a], 1))))
        return gate * v, gate * a


class AVCL(Method):
    """Gate both modalities by each other, align their channels, contrast their clips.

    Everything after the towers is computed in fp32. What `embed` gives are the towers' features,
    since a gated row would depend on the other modality; `features` gives the gated ones.

    Args:
        towers: of video and audio, of one width; maps are asked of them for other layers than
            `pool`.
        stages: the parts of training; all do the same.
        fusion: AMFM; None feeds the features as they are (Table III).
        temperature: τ of SelfCL (eq. 8).
        off_diagonal: λ of CGRA (eq. 5).
        correlation_weight: λ_cor (eq. 11).
        contrast_weight: λ_self (eq. 11), of a sum over the batch.
        layers: where CGRA is attached (Table II); the terms of several are added up. `pool` is
            after the gate. A map stands for its mean over time and space, ungated. Without any
            there is no CGRA.

    Raises:
        UsageError: the towers are not of audio and video, a number is out of its range, a layer is
            unknown, or one is wanted that the towers do not give.
    """

    chunked = False

    def __init__(
        self,
        towers: Mapping[Modality, nn.Module],
        stages: Sequence[Stage],
        *,
        fusion: Fusion | None,
        temperature: float,
        off_diagonal: float,
        correlation_weight: float,
        contrast_weight: float,
        layers: Sequence[Layer] = ("pool",),
    ) -> None:
        super().__init__(towers, stages)
        if set(self.modalities) != set(SIGHT_SOUND):
            raise UsageError(f"AVCL wants audio and video, not {', '.join(self.modalities)}")
        above_zero(temperature=temperature)
        at_least(
            0,
            off_diagonal=off_diagonal,
            correlation_weight=correlation_weight,
            contrast_weight=contrast_weight,
        )
        self.fusion = fusion
        self.temperature, self.off_diagonal = temperature, off_diagonal
        self.correlation_weight, self.contrast_weight = correlation_weight, contrast_weight
        self.layers = tuple(layers)
        self._check_layers()
        if not contrast_weight and not (correlation_weight and self.layers):
            raise UsageError("nothing is learned: neither contrast nor alignment has a weight")

    def forward(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """λ_self times SelfCL (eq. 10) and λ_cor times CGRA (eq. 5): their sum is eq. 11."""
        seen = {m: self._seen(m, batch.inputs[m]) for m in SIGHT_SOUND}
        with torch.autocast(batch.index.device.type, enabled=False):
            v, a = ({name: gather(x) for name, x in seen[m].items()} for m in SIGHT_SOUND)
            v["pool"], a["pool"] = self._fused(v["pool"], a["pool"])
            contrast = self_contrast(v["pool"], a["pool"], self.temperature)
            terms = {"contrast": self.contrast_weight * contrast}
            aligned = [
                cross_correlation(v[layer], a[layer], self.off_diagonal) for layer in self.layers
            ]
        if aligned:
            terms["correlation"] = self.correlation_weight * torch.stack(aligned).sum()
        return terms

    def features(self, batch: Batch) -> Float[Tensor, "clips features"]:
        """Each clip's gated features of video and audio side by side: what a classifier reads."""
        return torch.cat(self._gated(batch), 1)

    def scores(self, batch: Batch) -> dict[str, Tensor]:
        """The cosine of a clip's gated features, which is what eq. 8 compares."""
        v, a = self._gated(batch)
        return {"fused": F.cosine_similarity(v, a, dim=1)}

    def _gated(self, batch: Batch) -> tuple[Tensor, Tensor]:
        v, a = (at_least_fp32(self.towers[m](batch.inputs[m])) for m in SIGHT_SOUND)
        return self._fused(v, a)

    def _fused(self, v: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return (v, a) if self.fusion is None else self.fusion(v, a)

    def _seen(self, modality: Modality, x: Tensor) -> dict[str, Float[Tensor, "n planes"]]:
        """A tower's features, and the means of the maps that are wanted beside them."""
        tower = self.towers[modality]
        if not set(self.layers) - {"pool"}:
            return {"pool": at_least_fp32(tower(x))}
        assert isinstance(tower, Mapped)
        maps = tower.maps(x)
        return {
            name: at_least_fp32(maps[name]).flatten(2).mean(2)
            if name != "pool"
            else at_least_fp32(maps[name])
            for name in {*self.layers, "pool"}
        }

    def _check_layers(self) -> None:
        known = get_args(Layer)
        if unknown := [layer for layer in self.layers if layer not in known]:
            raise UsageError(
                f"CGRA is attached at {', '.join(known)}, one or more, or nowhere; not at "
                f"{unknown[0]!r}"
            )
        if len(set(self.layers)) < len(self.layers):
            raise UsageError(f"CGRA is attached once at a layer, not {', '.join(self.layers)}")
        maps = set(self.layers) - {"pool"}
        if maps and not all(isinstance(tower, Mapped) for tower in self.towers.values()):
            raise UsageError(
                f"these towers give no maps to align at {', '.join(sorted(maps))}; those of the "
                "recipe `avcl` do, narrow ones too (`--planes 8`)"
            )


def avcl(
    tokenizer: Tokenizer,
    *,
    epochs: int = 300,
    temperature: float = 0.07,
    off_diagonal: float = 0.005,
    correlation_weight: float = 0.9,
    contrast_weight: float = 0.1,
    layers: Sequence[Layer] = ("pool",),
    fusion: bool = True,
    joint: int = 256,
    rate: float = 1e-3,
    parts: Parts = Films(),
) -> Recipe:
    """AVCL with the paper's networks and numbers.

    Args:
        tokenizer: of the training narrations; they are not learned from.
        epochs: of the one stage.
        temperature: τ of the contrast; the paper gives none.
        off_diagonal: λ of the alignment, the paper's.
        correlation_weight: λ_cor of the alignment, the paper's.
        contrast_weight: λ_self of the contrast, which weighs a sum over the batch; the paper's is
            0.1, for 16 clips.
        layers: where the alignment is attached: conv3, conv4, conv5, pool; none leaves it out.
        fusion: gate both modalities by each other.
        joint: width inside the gate; the paper gives none.
        rate: peak learning rate.
        parts: towers, views and optimisation.
    """
    towers = parts.towers(tokenizer, SIGHT_SOUND)
    with drawn_by(parts.seed):
        method = AVCL(
            towers,
            (Stage("pretrain", epochs),),
            fusion=Fusion(parts.width, joint) if fusion else None,
            temperature=temperature,
            off_diagonal=off_diagonal,
            correlation_weight=correlation_weight,
            contrast_weight=contrast_weight,
            layers=layers,
        )
    return parts.recipe(tokenizer, method, (rate,))


avcl_small = small(
    avcl,
    "AVCL with small towers, for a processor.",
    epochs=13,
    contrast_weight=0.0125,
    joint=64,
)
