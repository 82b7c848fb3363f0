import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.errors import UsageError
from sonant.media.text import Tokenizer, clean, train_tokenizer

NARRATIONS = ["#C C washes the cup", "#C C cuts the carrot", "#O A man X washes a pot"] * 3


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("#C C picks up a cup", "picks up a cup"),
        ("#c c picks up a cup.", "picks up a cup."),
        ("# C c  cuts   the wood ", "cuts the wood"),
        ("#C cuts", "cuts"),
        ("#CC cuts", "cuts"),
        ("#O A man X sits", "A man X sits"),
        ("#C C holds #unsure in her hand", "holds something in her hand"),
        ("#Unsure", "something"),
        ("#C C Cuts\tonions #summary", "Cuts onions summary"),
        ("#C C", ""),
        ("C cuts", "C cuts"),
        ("#Carl and #ok", "Carl and ok"),
    ],
)
def test_clean_takes_marks_out(raw: str, kept: str) -> None:
    assert clean(raw) == kept


@given(st.text(alphabet="#cCoO unsure\t\n"))
def test_cleaning_twice_changes_nothing(raw: str) -> None:
    once = clean(raw)
    assert clean(once) == once
    assert "#" not in once
    assert once == " ".join(once.split())


def test_encode_pads_cuts_and_spells() -> None:
    tokenizer = train_tokenizer(NARRATIONS)
    ids = tokenizer.encode(["#C C washes the cup", "Washes THE cup the cup", "", "throw"], 4)
    assert ids.dtype == np.int64
    assert ids.shape == (4, 4)
    assert (ids[0] != 0).tolist() == [True, True, True, False]
    assert ids[1, :3].tolist() == ids[0, :3].tolist()
    assert not ids[2].any()
    assert 0 <= ids.min() <= ids.max() < tokenizer.size
    assert tokenizer.decode(ids[0]) == "washes the cup"
    assert tokenizer.decode(tokenizer.encode(["chart carts"], 12)[0]) == "chart carts"
    assert tokenizer.encode(["ж"], 2)[0].tolist() == [1, 0]


@given(
    st.lists(st.sampled_from(["washes", "the", "cup", "cuts", "carrot", "pot", "man"]), max_size=9)
)
def test_known_words_survive(words: list[str]) -> None:
    tokenizer = train_tokenizer(NARRATIONS)
    assert tokenizer.decode(tokenizer.encode([" ".join(words)], 9)[0]) == " ".join(words)


def test_training_does_not_depend_on_order_or_process(tmp_path: Path) -> None:
    words = [f"{a}{b}{c} {b}{a}" for a in "abcdefgh" for b in "ijklmnop" for c in "qrst"]
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom sonant.media.text import *\n"
        "train_tokenizer(json.load(sys.stdin), size=150).save(Path(sys.argv[1]))"
    )
    for number, given_words in enumerate((words, words[::-1])):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{number}.json")],
            input=json.dumps(given_words).encode(),
            check=True,
        )
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "1.json").read_bytes()


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(NARRATIONS)
    tokenizer.save(tmp_path / "t.json")
    again = Tokenizer.read(tmp_path / "t.json")
    assert np.array_equal(again.encode(NARRATIONS, 8), tokenizer.encode(NARRATIONS, 8))


def test_no_narrations_make_a_tokenizer_of_nothing() -> None:
    assert train_tokenizer([""]).encode(["what", ""], 2).tolist() == [[1, 0], [0, 0]]


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tokenizer there"):
        Tokenizer.read(tmp_path / "t.json")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(UsageError, match="not a tokenizer's JSON"):
        Tokenizer.read(tmp_path / "t.json")


WORDS = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["wash", "##es", "##e", "the", "cup", "cuts", "carrot", "a", "b"]


def vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


def test_a_published_vocabulary_spells_as_its_own_library_does(tmp_path: Path) -> None:
    from transformers import BertTokenizer

    tokenizer = Tokenizer.published(vocabulary(tmp_path))
    theirs = BertTokenizer.from_pretrained(tmp_path)
    for text in ["washes the cup", "Washed, the CUP!", "b" * 120, "a b a b", "é cuts"]:
        for tokens in (3, 8):
            expected = theirs(text, truncation=True, max_length=tokens)["input_ids"]
            found = tokenizer.encode([text], tokens)[0].tolist()
            assert found == expected + [0] * (tokens - len(expected)), text
    assert not tokenizer.encode(["#C C"], 8).any()
    assert tokenizer.decode(tokenizer.encode(["#C C washes the cup"], 8)[0]) == "washes the cup"


def test_a_published_tokenizer_file_is_read_and_saved_alike(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as WordPieces

    first = Tokenizer.published(vocabulary(tmp_path))
    first.save(tmp_path / "plain" / "tokenizer.json")
    padding = WordPieces.from_file(str(tmp_path / "plain" / "tokenizer.json"))
    padding.enable_padding(length=5)
    padding.enable_truncation(3)
    (tmp_path / "padding").mkdir()
    padding.save(str(tmp_path / "padding" / "tokenizer.json"))
    texts = ["washes the cup", "", "cuts the carrot cuts the carrot"]
    for source in (tmp_path / "plain", tmp_path / "padding" / "tokenizer.json", str(tmp_path)):
        again = Tokenizer.published(source)
        assert np.array_equal(again.encode(texts, 6), first.encode(texts, 6))
    read = Tokenizer.read(tmp_path / "plain" / "tokenizer.json")
    assert np.array_equal(read.encode(texts, 6), first.encode(texts, 6))


def test_what_is_no_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none of tokenizer\.json, vocab\.txt"):
        Tokenizer.published(tmp_path)
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(UsageError, match=r"it lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\]"):
        Tokenizer.published(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS[1:], "[PAD]"]))
    with pytest.raises(UsageError, match=r"id 0 is '\[unused0\]' there, not padding"):
        Tokenizer.published(tmp_path)
