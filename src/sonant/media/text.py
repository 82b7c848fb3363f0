"""Narrations to token ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer as WordPieces
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from sonant.errors import UsageError
from sonant.files import replacing
from sonant.hub import fetch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tokenizers import Encoding

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
    """Words to ids: 0 is padding.

    One that `train_tokenizer` learned from narrations has 1 for a word with an unknown character.
    A published one may put tokens of its own before and after each text, such as BERT's [CLS] and
    [SEP].

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

        A row is all 0 if nothing is left of its text. Where texts end in a token of the tokenizer's
        own, so do those that are cut.
        """
        ids = np.zeros((len(narrations), tokens), np.int64)
        found = self._pieces.encode_batch_fast([clean(text) for text in narrations])
        for row, encoding in zip(ids, found, strict=True):
            kept = _cut(encoding, tokens)
            row[: len(kept)] = kept
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The words of ids, without padding."""
        return str(self._pieces.decode([int(id) for id in ids if id]))

    def alike(self, other: Tokenizer) -> bool:
        """Whether the same pieces have the same ids."""
        return bool(self._pieces.get_vocab() == other._pieces.get_vocab())

    def json(self) -> str:
        """All of it, as the tokenizers library has it."""
        return str(self._pieces.to_str(pretty=True))

    def save(self, path: Path) -> None:
        """Write its JSON, whole or not at all."""
        with replacing(path) as partial:
            partial.write_text(self.json(), encoding="utf-8")

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

    @classmethod
    def published(cls, source: str | Path) -> Tokenizer:
        """A ready vocabulary of word pieces, as published models such as DistilBERT have one.

        Args:
            source: a tokenizer.json, or BERT's vocab.txt with a token a line; a folder that holds
                one; or a Hugging Face id with or without "@revision".

        Raises:
            UsageError: there is none, or its id 0 is not padding.
            SonantError: the hub cannot be reached.
        """
        path = fetch(source, ("tokenizer.json", "vocab.txt"))
        pieces = _uncased(path) if path.suffix == ".txt" else cls.read(path)._pieces
        pieces.no_truncation()
        pieces.no_padding()
        if pieces.id_to_token(0) not in ("[PAD]", "<pad>"):
            raise UsageError(f"{path}: id 0 is {pieces.id_to_token(0)!r} there, not padding")
        return cls(pieces)


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


def _cut(encoding: Encoding, tokens: int) -> list[int]:
    """The ids that fit, the last kept if it is the tokenizer's own; none if all of them are."""
    own = encoding.special_tokens_mask
    if all(own):
        return []
    ids = list(encoding.ids)
    return ids[: tokens - 1] + ids[-1:] if len(ids) > tokens and own[-1] else ids[:tokens]


def _uncased(path: Path) -> WordPieces:
    """BERT's uncased tokenizer from its vocabulary, a token a line in the order of the ids."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a vocabulary: {error}") from error
    vocabulary = {token: number for number, token in enumerate(lines)}
    own = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    if missing := [token for token in own if token not in vocabulary]:
        raise UsageError(f"{path}: not a vocabulary of BERT: it lacks {', '.join(missing)}")
    pieces = _word_pieces(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    pieces.add_special_tokens(own)
    ends = [(token, vocabulary[token]) for token in ("[SEP]", "[CLS]")]
    pieces.post_processor = processors.BertProcessing(*ends)
    return pieces


def _word_pieces(model: models.WordPiece) -> WordPieces:
    pieces = WordPieces(model)
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    return pieces
