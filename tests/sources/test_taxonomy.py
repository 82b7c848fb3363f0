from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.errors import TableError
from sonant.sources.taxonomy import Actions, Taxonomy, forms

VERBS = """label,group
"adjust_(regulate,_increase/reduce,_change)","['adjust', 'change', 'increase/reduce', 'switch']"
"cut_(trim,_slice,_chop)","['cut', 'trim', 'slice', 'chop']"
"take_(pick,_grab,_get)","['take', 'takes', 'took', 'pick', 'pick up', 'picks up']"
"turn_on_(switch_on,_start,_light)","['turn on', 'switch on', 'light']"
"turn_off_(turn_off,_switch_off)","['turn off', 'switch off']"
wash,"['wash', 'rinse']"
wipe,"['wipe', 'wipes']"
pick,['choose']
"""
NOUNS = """label,group
"bag_(bag,_grocery,_sack)","['bag', 'grocery', 'sack']"
"board_(board,_chopping-board)","['board', 'chopping board', 'cutting_board']"
"knife_(knife,_machete)","['knife', 'machete']"
lid,['lid']
pan,['pan']
"tomato","['tomato']"
"table","['table', 'tables']"
"""


@pytest.fixture(scope="module")
def verbs(tmp_path_factory: pytest.TempPathFactory) -> Taxonomy:
    return Taxonomy.read(written(tmp_path_factory.mktemp("verbs"), VERBS))


@pytest.fixture(scope="module")
def nouns(tmp_path_factory: pytest.TempPathFactory) -> Taxonomy:
    return Taxonomy.read(written(tmp_path_factory.mktemp("nouns"), NOUNS))


def written(folder: Path, text: str) -> Path:
    path = folder / "taxonomy.csv"
    path.write_text(text)
    return path


def test_groups_keep_their_order_and_have_short_names(verbs: Taxonomy, nouns: Taxonomy) -> None:
    names = ("adjust", "cut", "take", "turn_on", "turn_off", "wash", "wipe", "pick")
    assert verbs.names == names
    assert verbs.words[0] == ("adjust", "change", "increase", "reduce", "switch", "regulate")
    assert "switch on" in verbs.words[3]
    assert nouns.words[1] == ("board", "chopping board", "cutting board")


def test_two_groups_of_one_name_keep_their_whole_labels(tmp_path: Path) -> None:
    path = written(tmp_path, "label,group\nturn_(spin),['spin']\nturn_(fold),['fold']\nlift,[]\n")
    assert Taxonomy.read(path).names == ("turn_(spin)", "turn_(fold)", "lift")


def test_the_labels_synonyms_do_without_a_list(tmp_path: Path) -> None:
    taxonomy = Taxonomy.read(written(tmp_path, 'label\n"cut_(trim,_chop-up)"\n'))
    assert taxonomy.words == (("cut", "trim", "chop up"),)


@pytest.mark.parametrize(
    ("narration", "verb", "noun"),
    [
        ("#C C cuts the tomatoes with a knife", "cut", "tomato"),
        ("#c c chopped tomato on the chopping board.", "cut", "tomato"),
        ("# C c   trimming the cutting-board", "cut", "board"),
        ("#C C picks up the pan lid from the table", "take", "lid"),
        ("#C C took knives", "take", "knife"),
        ("#C C switches on the pan", "turn_on", "pan"),
        ("#C C switches the pan", "adjust", "pan"),
        ("#O man X rinses the groceries", "wash", "bag"),
        ("#C C chooses a machete", "pick", "knife"),
        ("#C C wipes #unsure on the tables", "wipe", "table"),
        ("#C C #unsure", None, None),
        ("#C C sings to the pan", None, "pan"),
        ("#C C puts the washing away", "wash", None),
        ("", None, None),
    ],
)
def test_what_is_found_in_narrations(
    verbs: Taxonomy, nouns: Taxonomy, narration: str, verb: str | None, noun: str | None
) -> None:
    assert Actions(verbs, nouns).find(narration) == (verb, noun)


def test_either_taxonomy_may_be_missing(verbs: Taxonomy, nouns: Taxonomy) -> None:
    assert Actions(verbs, None).find("#C C cuts the tomato") == ("cut", None)
    assert Actions(None, nouns).find("#C C cuts the tomato") == (None, "tomato")


@given(st.sampled_from(["stop", "press", "carry", "knife", "wash", "cut", "move", "tie", "fry"]))
def test_regular_inflections_lead_back(word: str) -> None:
    doubled = word + word[-1] if word in ("stop", "cut") else word
    stem = doubled.removesuffix("e")
    plural = word[:-1] + "ies" if word.endswith("ry") else word + "s"
    plural = word + "es" if word in ("press", "wash") else plural
    past = word[:-1] + "ied" if word.endswith("ry") else stem + "ed"
    assert all(word in forms(said) for said in (word, plural, stem + "ing", past))


@given(st.text(max_size=40))
def test_any_text_is_looked_through(text: str) -> None:
    taxonomy = Taxonomy(("cut", "turn_on"), (("cut",), ("turn on",)))
    verb, noun = Actions(taxonomy, taxonomy).find(text)
    assert {verb, noun} <= {"cut", "turn_on", None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,words\ncut,['cut']\n", "has the columns name, words; wanted are label and group"),
        ("", r"has the columns \(none\)"),
        ("label,group\n", "has no rows"),
        ("label,group\ncut,['cut']\ncut,['trim']\n", "line 3: label 'cut' stands in line 2 too"),
        ("label,group\n ,['cut']\n", "line 2: label is empty"),
        ("label,group\ncut,cut trim\n", "line 2: group is 'cut trim'; wanted is a list"),
        ("label,group\ncut,\"['cut', 3]\"\n", "line 2: group is"),
        ("label,group\ncut,__import__('os')\n", "line 2: group is"),
    ],
)
def test_wrong_taxonomies_say_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        Taxonomy.read(written(tmp_path, text))
    with pytest.raises(TableError, match="no readable taxonomy"):
        Taxonomy.read(tmp_path / "none.csv")
