import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from published import OURS, SIZES, as_published, scattered
from sonant.encoders.ast import AST, fit_places
from sonant.encoders.weights import load_ast
from sonant.errors import UsageError

TINY = {**OURS, "bins": 32, "patch": 8, "stride": 5, "epsilon": 1e-12}
SOUND = torch.randn(2, 43, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_ast_is_that_of_transformers() -> None:
    from transformers import ASTConfig, ASTModel

    config = ASTConfig(
        **SIZES,
        intermediate_size=40,
        patch_size=8,
        frequency_stride=5,
        time_stride=5,
        max_length=43,
        num_mel_bins=32,
    )
    theirs = scattered(ASTModel(config))
    ours = AST(frames=43, **TINY).eval()
    load_ast(ours, as_published(theirs))
    with torch.no_grad():
        expected = theirs(SOUND).pooler_output
        torch.testing.assert_close(ours(SOUND), expected, atol=1e-5, rtol=0)


def test_deit_sees_a_grey_picture_as_ast_hears_a_spectrogram() -> None:
    from transformers import DeiTConfig, DeiTModel

    config = DeiTConfig(**SIZES, intermediate_size=40, image_size=32, patch_size=8)
    theirs = scattered(DeiTModel(config, add_pooling_layer=False))
    ours = AST(frames=32, **{**TINY, "stride": 8}).eval()
    load_ast(ours, as_published(theirs, "deit."))
    sound = SOUND[:, :32]
    with torch.no_grad():
        picture = sound.transpose(1, 2)[:, None].expand(-1, 3, -1, -1)
        expected = theirs(picture).last_hidden_state[:, :2].mean(1)
        torch.testing.assert_close(ours(sound), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [8, 30, 43, 47, 148, 300])
def test_sound_of_any_length(frames: int) -> None:
    model = scattered(AST(frames=43, **TINY))
    assert model(torch.zeros(1, frames, 32)).isfinite().all()


def test_a_frame_more_or_less_that_fills_no_patch_changes_nothing() -> None:
    model = AST(**{**TINY, "bins": 128, "patch": 16, "stride": 10}).eval()
    assert model.grid == (12, 14)
    sound = torch.randn(1, 149, 128)
    assert torch.equal(model(sound), model(sound[:, :148]))


def test_the_time_of_a_sound_matters() -> None:
    model, x = scattered(AST(frames=43, **TINY)), torch.zeros(2, 43, 32)
    x[0, 3:8], x[1, 33:38] = 2, 2
    first, second = model(x)
    assert not torch.allclose(first, second, atol=1e-2)


@given(*[st.integers(1, 9)] * 4)
def test_a_table_of_places_is_cut_in_the_middle_or_stretched(
    rows: int, columns: int, wanted_rows: int, wanted_columns: int
) -> None:
    grid = 10.0 * torch.arange(rows)[:, None] + torch.arange(columns)
    table = torch.cat([torch.tensor([-1.0, -2.0]), grid.flatten()]).reshape(1, -1, 1)
    found = fit_places(table, (rows, columns), (wanted_rows, wanted_columns))
    assert found[0, :2, 0].tolist() == [-1, -2]
    places = found[0, 2:, 0].reshape(wanted_rows, wanted_columns)
    if wanted_rows <= rows and wanted_columns <= columns:
        top, left = rows // 2 - wanted_rows // 2, columns // 2 - wanted_columns // 2
        expected = grid[top : top + wanted_rows, left : left + wanted_columns]
        assert torch.equal(places, expected)
    assert places.min() >= grid.min() - 1e-4
    assert places.max() <= grid.max() + 1e-4
    assert (places.diff(dim=0) >= -1e-5).all()
    assert (places.diff(dim=1) >= -1e-5).all()


def test_the_full_size_is_that_of_the_published_model() -> None:
    from transformers import ASTConfig, ASTModel

    def size(model: torch.nn.Module) -> int:
        return sum(x.numel() for x in model.parameters())

    with torch.device("meta"):
        ten_seconds = size(AST(frames=1024))
        assert ten_seconds == size(ASTModel(ASTConfig())) == 86_187_264
        head = 2 * 768 + 527 * (768 + 1)
        assert ten_seconds + head == 86_594_063  # "86.6M" on the page of the published model
        assert size(AST()) == ten_seconds - 12 * (101 - 14) * 768


def test_what_does_not_go_together_is_refused() -> None:
    model = AST(**TINY)
    with pytest.raises(UsageError, match="8 frames or more of 32 bins, not 7 of 32"):
        model(torch.zeros(1, 7, 32))
    with pytest.raises(UsageError, match="not 9 of 31"):
        model(torch.zeros(1, 9, 31))
    with pytest.raises(UsageError, match="bins must be at least 8, not 7"):
        AST(**{**TINY, "bins": 7})
