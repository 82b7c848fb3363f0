"""Narrations to token ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer as WordPieces
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from sonant.errors import UsageError
from sonant.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_UNSURE = re.compile(r"#\s*unsure\b", re.IGNORECASE)
_PERSON = re.compile(r"#\s*c\s*c\b|#\s*[co]\b", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


def clean(narration: str) -> str:
    """Take the annotators' marks out of a narration.

    `#C C`, `#c c`, `# C c` and a lone `#C` (the camera wearer) go, and so does `#O` (someone else),
    while the words after it stay: "#O man X sits" becomes "man X sits". `#unsure` becomes
    "something", which is how annotators fill that place in words. Of any other `#tag` the word
    stays. Runs of white space become one space. Case and punctuation stay as they are.

    >>> clean("#C C  picks up the #unsure ")
    'picks up the something'
    """
    text = _PERSON.sub(" ", _UNSURE.sub(" something ", narration)).replace("#", " ")
    return _SPACE.sub(" ", text).strip()


class Tokenizer:
    """Words to ids, learned from narrations: 0 is padding, 1 an unknown character's word.

    Args:
        pieces: the word pieces, in the format of the tokenizers library.
    """

    def __init__(self, pieces: WordPieces) -> None:
        self._pieces = pieces

    @property
    def size(self) -> int:
        """One more than the highest id."""
        return int(self._pieces.get_vocab_size())

    def encode(self, narrations: Sequence[str], tokens: int) -> np.ndarray[Any, Any]:
        """Ids int64 [narrations, tokens] of the cleaned texts, cut or padded with 0 at the end.

        A row is all 0 if nothing is left of its text.
        """
        ids = np.zeros((len(narrations), tokens), np.int64)
        found = self._pieces.encode_batch_fast([clean(text) for text in narrations])
        for row, encoding in zip(ids, found, strict=True):
            row[: len(encoding.ids)] = encoding.ids[:tokens]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The words of ids, without padding."""
        return str(self._pieces.decode([int(id) for id in ids if id]))

    def save(self, path: Path) -> None:
        """Write as the JSON of the tokenizers library, whole or not at all."""
        with replacing(path) as partial:
            partial.write_text(self._pieces.to_str(pretty=True), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Tokenizer:
        """Read what `save` wrote.

        Raises:
            UsageError: the file is missing or no tokenizer.
        """
        try:
            return cls(WordPieces.from_str(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UsageError(f"{path}: no tokenizer there: {error.strerror}") from error
        except Exception as error:  # the library raises nothing narrower
            raise UsageError(f"{path}: not a tokenizer's JSON: {error}") from error


def train_tokenizer(narrations: Iterable[str], *, size: int = 2000) -> Tokenizer:
    """Learn a WordPiece vocabulary of at most `size` pieces; the same narrations give the same one.

    Words are lower case. A word not seen in training is spelt from smaller pieces, and is unknown
    only if it holds a character that was never seen.
    """
    texts = sorted(clean(text) for text in narrations)
    normalise = normalizers.BertNormalizer(lowercase=True)
    letters = sorted({letter for text in texts for letter in normalise.normalize_str(text)} - {" "})
    # The trainer numbers continuing letters in the order of a hash map, and breaks ties by number:
    # only naming them beforehand makes it give the same pieces each time.
    first = ["[PAD]", "[UNK]", *("##" + letter for letter in letters)]
    trained = _word_pieces(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(size, len(first) + len(letters)), special_tokens=first, show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    vocabulary = trained.get_vocab()
    return Tokenizer(_word_pieces(models.WordPiece(vocab=vocabulary, unk_token="[UNK]")))


def _word_pieces(model: models.WordPiece) -> WordPieces:
    pieces = WordPieces(model)
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    return pieces
