"""MC3's Tables 2 and 3 with their ablations: `sonant bench mc3`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sonant import report
from sonant.bench.runs import JUDGE, Draw, Result, Row, features_of, judge, reach
from sonant.bench.tables import Column, Results, Table, differences, paired, table, write
from sonant.checkpoint import RecipeFunction, defaults, make
from sonant.media.pack import Pack
from sonant.media.text import train_tokenizer
from sonant.methods.cm_acc import cm_acc, cm_acc_small
from sonant.methods.mc3 import mc3, mc3_small
from sonant.methods.pairs import (
    av,
    av_small,
    clap,
    clap_small,
    cmc,
    cmc_small,
    imagebind,
    imagebind_small,
)
from sonant.methods.parts import Paper
from sonant.methods.posterior import posterior_consensus, posterior_consensus_small
from sonant.methods.relational import relational_consensus, relational_consensus_small
from sonant.sources.folder import Window
from sonant.tasks.discovery import discovery
from sonant.tasks.retrieval import retrieval

ALIGN = Row("aligned only", mc3_small, {"refine_epochs": 0})
REFINE = {"align_epochs": 0}


def refined(name: str, **arguments: object) -> Row:
    """MC3 refined from the one alignment that all such rows share."""
    return Row(name, mc3_small, REFINE | arguments, after=ALIGN)


def related(name: str, **arguments: object) -> Row:
    """Relational consensus refined from the same alignment."""
    return Row(name, relational_consensus_small, REFINE | arguments, after=ALIGN)


def lasting(before: float, after: float) -> Row:
    """MC3 on clips of another length."""
    seconds = before + after
    window = Window(before, after)
    return Row(f"{seconds:g} s", mc3_small, {"seconds": seconds}, window=window)


WITHOUT_CONSENSUS = refined("w/o consensus", consensus_weight=0.0)
WITHOUT_ALIGN = Row(
    "w/o align", mc3_small, {"align_epochs": 0, "refine_epochs": 13, "refine_rate": 1e-3}
)
WEIGHT_1 = refined("MC3, weight 1", consensus_weight=1.0)
WHOLE = refined("MC3")
CLAP = Row("CLAP", clap_small)
CM_ACC = Row("CM-ACC", cm_acc_small)
CMC = Row("CMC", cmc_small)
IMAGEBIND = Row("ImageBind", imagebind_small)
RELATIONAL = related("relational consensus")
GROUPS = ("verb", "noun")
POSTERIOR = Row("posterior consensus", posterior_consensus_small, REFINE, after=ALIGN)
GROUPED = related("relational, verb-noun groups", groups=GROUPS)
SIGHT_TARGET = related("target: sight and narration", target=("text", "video"))

ROWS = [
    Row("untrained", mc3_small, {"align_epochs": 0, "refine_epochs": 0}),
    CLAP,
    CM_ACC,
    Row("A-V InfoNCE", av_small),
    CMC,
    IMAGEBIND,
    WITHOUT_CONSENSUS,
    refined("w/o contrastive", contrast=False),
    WITHOUT_ALIGN,
    WEIGHT_1,
    WHOLE,
    RELATIONAL,
    GROUPED,
    POSTERIOR,
]
"""The rows of Table 2 in its order, MC3 with the paper's weight as written, and what goes beyond.
All are trained for 13 epochs."""

KEPT = related("relational, A-V InfoNCE kept", contrast=True)

REFINED = related("relational, refined weights alone", align_share=0.0)
MIXED = [
    refined("w/o consensus, weights averaged", consensus_weight=0.0, align_share=0.5),
    refined("MC3, weights averaged", align_share=0.5),
]

CONTROLS = [
    ALIGN,
    REFINED,
    *MIXED,
    Row("CMC, verb-noun groups", cmc_small, {"groups": GROUPS}),
    KEPT,
    SIGHT_TARGET,
    related("target: sound and sound", target=("audio", "audio")),
    related("target: narrations exchanged", shuffled=True),
    related("target: its own, sharpened", target=("audio", "video"), sharpening=2.0),
]
"""What the gain might be instead: a shorter training, the mean of two trainings' weights, partners
by label, another target. All but the alignment, which stops after its 8 epochs, are trained for 13
too."""

PLAIN = refined("plain inverse", inverse="plain")
"""With α = .5. The winner's inverse knows no exponent (docs/mc3.md), so that MC3 is α = 1."""
ABLATIONS: Mapping[str, Sequence[Row]] = {
    "Anchor": [
        WHOLE,
        refined("anchor video", anchor="video"),
        refined("anchor narration", anchor="text"),
    ],
    "Exponent of video": [
        refined("plain inverse, α = .25", inverse="plain", video_exponent=0.25),
        PLAIN,
        WHOLE,
        refined("plain inverse, α = 2", inverse="plain", video_exponent=2.0),
    ],
    "Weight of consensus": [
        WITHOUT_CONSENSUS,
        WEIGHT_1,
        refined("weight 20", consensus_weight=20.0),
        refined("weight 60", consensus_weight=60.0),
        WHOLE,
        refined("weight 250", consensus_weight=250.0),
    ],
    "Form of consensus": [
        WHOLE,
        PLAIN,
        refined("consensus held fixed", detach=True),
        refined("squared distance", norm="l2"),
    ],
}
DURATIONS = [lasting(0.25, 0.5), WHOLE, lasting(1.0, 2.0)]
"""Clips of other lengths are other clips, so this is for clips that can be cut anew."""

PAPER_SIZE: Mapping[RecipeFunction, RecipeFunction] = {
    mc3_small: mc3,
    av_small: av,
    clap_small: clap,
    cmc_small: cmc,
    cm_acc_small: cm_acc,
    imagebind_small: imagebind,
    relational_consensus_small: relational_consensus,
    posterior_consensus_small: posterior_consensus,
}
"""Small twins to the recipes of the paper's size."""


def packed_for(parts: Paper, window: Window) -> dict[str, Any]:
    """Settings of `sonant pack` that give towers their pictures: 8 frames a second, or more."""
    return {
        "short_side": parts.size + 2 * parts.jitter,
        "frame_rate": max(8.0, parts.frames / window.length),
    }


def at_papers_size(row: Row, parts: Mapping[str, Any]) -> Row:
    """The same row with the paper's towers and numbers.

    Args:
        row: of small towers.
        parts: arguments of `methods.parts.Paper`, such as the weights that towers begin with.
    """
    arguments = {**row.arguments, **parts}
    if row == WITHOUT_ALIGN:
        known = defaults(mc3)
        epochs = known["align_epochs"] + known["refine_epochs"]
        arguments |= {"refine_epochs": epochs, "refine_rate": known["align_rate"]}
    after = None if row.after is None else at_papers_size(row.after, parts)
    return replace(row, recipe=PAPER_SIZE[row.recipe], arguments=arguments, after=after)


PUBLISHED_DISCOVERY = {
    "untrained": (".500", ".559", ".500", ".559"),
    "CLAP": ("–", "–", ".637", ".695"),
    "CM-ACC": (".540", ".590", "–", "–"),
    "CMC": (".550", ".601", ".635", ".693"),
    "ImageBind": (".554", ".605", ".642", ".685"),
    "w/o consensus": (".563", ".615", ".635", ".694"),
    "w/o contrastive": (".436", ".493", ".584", ".620"),
    "w/o align": (".448", ".507", ".464", ".521"),
    "MC3": (".598", ".666", ".658", ".715"),
}
"""Table 2: ROC and PR of AV, then of AL. Its first row is random scores."""

PUBLISHED_RETRIEVAL = {
    "chance": ("0.1",) * 8,
    "CLAP": ("–", "–", "–", "–", "49.8", "87.6", "34.0", "67.1"),
    "CM-ACC": ("34.6", "63.5", "30.9", "57.7", "–", "–", "–", "–"),
    "CMC": ("36.5", "67.9", "33.8", "63.7", "44.1", "81.8", "32.8", "64.3"),
    "ImageBind": ("32.8", "61.5", "29.7", "57.9", "42.6", "76.5", "30.6", "60.5"),
    "w/o consensus": ("33.9", "63.0", "30.0", "56.1", "45.0", "84.7", "32.9", "65.8"),
    "w/o contrastive": ("3.3", "3.7", "6.4", "12.5", "3.1", "4.7", "3.3", "8.0"),
    "w/o align": ("10.0", "19.4", "5.9", "11.8", "11.6", "20.9", "6.5", "12.6"),
    "MC3": ("38.4", "72.8", "34.4", "66.3", "46.2", "88.5", "37.5", "73.8"),
}
"""Table 3: @5 and @10 of V>A, A>V, L>A, A>L."""

DISCOVERY = [
    Column("AV ROC", "AV raw", "roc_auc"),
    Column("AV PR", "AV raw", "pr_auc"),
    Column("AL ROC", "AL raw", "roc_auc"),
    Column("AL PR", "AL raw", "pr_auc"),
]
BESIDE = [
    Column("AV centred", "AV centred", "roc_auc"),
    Column("AV PMI", "AV pmi", "roc_auc"),
    Column("AV in verb", "AV raw", "within_verb"),
    Column("AL centred", "AL centred", "roc_auc"),
    Column("AL PMI", "AL pmi", "roc_auc"),
    Column("AL in verb", "AL raw", "within_verb"),
]
SPACE = [
    Column(f"{title} {modality}", of, modality)
    for of, title in (("rank", "rank"), ("others", "cosine with others"))
    for modality in ("audio", "video", "text")
]
DIRECTIONS = ("V>A", "A>V", "L>A", "A>L")
DIFFERENCES = [
    ("MC3", "w/o consensus"),
    ("relational consensus", "w/o consensus"),
    ("MC3", "CMC"),
    ("CMC", "A-V InfoNCE"),
    ("MC3, weight 1", "w/o consensus"),
    ("relational consensus", "CMC"),
    ("relational consensus", "MC3"),
    ("posterior consensus", "CMC"),
    ("posterior consensus", "w/o consensus"),
    ("relational, verb-noun groups", "CMC"),
    ("relational, verb-noun groups", "CMC, verb-noun groups"),
    ("relational consensus", "MC3, weights averaged"),
    *(("relational consensus", row.name) for row in CONTROLS if row not in MIXED),
    ("MC3, weights averaged", "w/o consensus, weights averaged"),
]


def bench(
    out: Path,
    draws: Sequence[Draw],
    *,
    ablation_draws: Sequence[Draw] = (),
    durations: bool = True,
    split: str = "test",
    paper: Mapping[str, Any] | None = None,
) -> list[Table]:
    """Train and judge every row on every draw, and write the tables to OUT/mc3.{md,csv,html}.

    Each draw also gets the report of its main rows, OUT/<draw>/rows/report.html, with their curves.
    What is there already is not done again. Judged on another split than test, all these files
    have its name in theirs. Rows whose partners are groups are left out where clips have no verbs
    and nouns.

    Args:
        out: folder of the tables.
        draws: the data of each run.
        ablation_draws: those on which the ablations are run, too.
        durations: whether clips of other lengths can be had, for an ablation of them.
        split: the clips to judge.
        paper: train the paper's towers, with these arguments of `methods.parts.Paper`; None for
            small ones. MC3 has the paper's weight then.

    Raises:
        UsageError: arguments that the paper's towers do not take.
    """

    def sized(row: Row) -> Row:
        return row if paper is None else at_papers_size(row, paper)

    if paper is not None:
        make(mc3, train_tokenizer(()), paper)  # what it refuses it refuses before clips are packed
    labels = set(Pack.open(draws[0].pack(Window())).clips.labels)
    there = [row for row in [*ROWS, *CONTROLS] if paper is None or row != WEIGHT_1]
    rows = [sized(row) for row in there if set(row.arguments.get("groups", ())) <= labels]
    results: dict[str, list[Result]] = {row.name: [] for row in rows}
    for draw in draws:
        for row in rows:
            results[row.name].append(_reached(row, draw, split))
        _report(draw, split, _temperature(sized(WHOLE)))
        _write(out, results, {}, split, sized(WHOLE))
    ablations: dict[str, dict[str, list[Result]]] = {}
    wanted = dict(ABLATIONS) | ({"Duration of a clip": DURATIONS} if durations else {})
    for title, ablated in wanted.items() if ablation_draws else ():
        ablations[title] = {
            row.name: [_reached(sized(row), draw, split) for draw in ablation_draws]
            for row in ablated
            if paper is None or row != WEIGHT_1
        }
        _write(out, results, ablations, split, sized(WHOLE))
    return _write(out, results, ablations, split, sized(WHOLE))


def _temperature(row: Row) -> float:
    """τ of a row's training, which the PMI score compares under, too."""
    known: dict[str, Any] = defaults(row.recipe) | dict(row.arguments)
    return float(known["temperature"])


def _reached(row: Row, draw: Draw, split: str) -> Result:
    temperature = _temperature(row)
    judged, version = partial(judge, temperature=temperature), f"{JUDGE} τ {temperature:g}"
    return reach(row, draw, split=split, judged=judged, version=version)


def _write(
    out: Path,
    results: Results,
    ablations: Mapping[str, Results],
    split: str,
    whole: Row,
) -> list[Table]:
    runs = len(next(iter(results.values())))
    known = defaults(whole.recipe)
    aligned, rate = known["align_epochs"], known["refine_rate"] / known["align_rate"]
    judged = (
        f"{paired(runs)}, {split} clips; mean and deviation over runs. All rows are trained for "
        f"{aligned + known['refine_epochs']} epochs, but for the untrained one and the alignment "
        f"alone ({aligned}); refined rows begin with that alignment, and their rate begins again"
        f"{' at half' if rate == 0.5 else ''}."
    )
    weight = known["consensus_weight"]
    weights = f"The paper's MC3 has weight 1; here the default is {weight:g}"
    weights += ", and 1 is a row of its own." if weight != 1 else "."
    ranked = [
        Column(f"{of} @{k}", of, f"hit@{k}", percent=True) for of in DIRECTIONS for k in (5, 10)
    ]
    chance = {
        "chance": [
            {of: result[f"{of} by chance"] for of in DIRECTIONS if f"{of} by chance" in result}
            for result in results["MC3"]
        ]
    }
    tables = [
        table("Sounding action discovery", f"Table 2. {judged} {weights}", results, DISCOVERY,
              PUBLISHED_DISCOVERY),
        table("Other scores", "ROC AUC. Double-centred and PMI scores compare with the training "
              "clips; in verb counts pairs of clips of the same verb only.", results, BESIDE),
        differences("Paired differences in discovery", "Mean over runs, then each run.", results,
                    DIFFERENCES, [DISCOVERY[0], BESIDE[0], DISCOVERY[2], BESIDE[3]]),
        table("Sounding action retrieval", f"Table 3, hit@k in per cent. {judged} The paper's own "
              "figures fit no single definition of recall@k.", chance | dict(results), ranked,
              PUBLISHED_RETRIEVAL),
        differences("Paired differences in retrieval", "hit@10, points.", results, DIFFERENCES,
                    ranked[1::2]),
        table("Has a space collapsed?", "Effective rank of each modality's embeddings (1: one "
              "line), and the mean cosine of a clip with the others (1: one point).", results,
              SPACE),
        *(
            table(title, f"{paired(len(next(iter(found.values()))))}, {split} clips.", found,
                  [*DISCOVERY, BESIDE[0], BESIDE[3], ranked[1], ranked[3]])
            for title, found in ablations.items()
        ),
    ]  # fmt: skip
    every = dict(results)
    for found in ablations.values():
        every |= {name: reached for name, reached in found.items() if name not in every}
    write(out, f"mc3{_suffix(split)}", "# MC3 and its rivals", tables, every)
    return tables


def _suffix(split: str) -> str:
    return "" if split == "test" else f"-{split}"


def _report(draw: Draw, split: str, temperature: float) -> None:
    """One page of a draw's main rows: Fig. 5's curves, histograms by case."""
    folder = draw.pack(Window())
    clips = Pack.open(folder).clips
    models = features_of([RELATIONAL, WHOLE, CMC, IMAGEBIND, CM_ACC, CLAP], draw)
    found = draw.folder / f"report{_suffix(split)}.json"
    said = repr((JUDGE, split, temperature, [(of.run, of.data) for of in models.values()]))
    made_from = {"discovery": hashlib.sha256(said.encode()).hexdigest()}
    if report.holds(found, made_from) and found.with_suffix(".html").is_file():
        return
    found.unlink(missing_ok=True)
    report.save(
        found,
        clips=clips,
        discovery=discovery(models, clips, split=split, temperature=temperature),
        retrieval=retrieval(models, clips, split=split),
        made_from=made_from,
    )
    report.report(found, found.with_suffix(".html"))
