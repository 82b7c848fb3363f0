import pytest
import torch

from published import scattered
from sonant.encoders.distilbert import DistilBERT
from sonant.encoders.weights import load_distilbert
from sonant.errors import UsageError

TINY = {"vocabulary": 50, "tokens": 12, "width": 24, "depth": 2, "heads": 3, "hidden": 40}
TEXT = torch.tensor([[2, 5, 6, 7, 3, 0, 0], [2, 9, 3, 0, 0, 0, 0], [2, 8, 7, 6, 5, 4, 3]])


@pytest.mark.parametrize("relu", [False, True])
def test_distilbert_is_that_of_transformers(relu: bool) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=50, max_position_embeddings=12, dim=24, n_layers=2, n_heads=3, hidden_dim=40
    )
    theirs = scattered(DistilBertModel(config))
    ours = DistilBERT(relu=relu, **TINY).eval()
    load_distilbert(ours, theirs.state_dict())
    with torch.no_grad():
        expected = theirs(TEXT, attention_mask=TEXT != 0).last_hidden_state[:, 0]
        expected = expected.clamp(min=0) if relu else expected
        torch.testing.assert_close(ours(TEXT), expected, atol=1e-5, rtol=0)


def test_padding_does_not_matter_and_nothing_is_finite() -> None:
    model = scattered(DistilBERT(relu=False, **TINY))
    torch.testing.assert_close(model(TEXT[:1, :5]), model(TEXT[:1]), atol=1e-6, rtol=0)
    assert model(torch.zeros(2, 7, dtype=torch.long)).isfinite().all()
    assert not torch.allclose(model(TEXT[2:]), model(TEXT[2:].flip(1)), atol=1e-2)


def test_training_drops_and_evaluation_does_not() -> None:
    model = DistilBERT(**TINY)
    assert not torch.equal(model(TEXT), model(TEXT))
    assert torch.equal(model.eval()(TEXT), model(TEXT))
    still = DistilBERT(dropout=0.0, **TINY)
    assert torch.equal(still(TEXT), still(TEXT))


def test_the_full_size_is_that_of_the_published_model() -> None:
    with torch.device("meta"):
        assert sum(x.numel() for x in DistilBERT().parameters()) == 66_362_880


def test_a_text_longer_than_the_table_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 12 tokens, not 13"):
        DistilBERT(**TINY)(torch.ones(1, 13, dtype=torch.long))
