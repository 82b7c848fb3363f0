"""A contact sheet of clusters, as MC3's Fig. 6: a row a cluster, its clips from the centre out."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont, ImageOps

from sonant.errors import SonantError, UsageError
from sonant.files import demand_writable, replacing
from sonant.media.pack import Pack
from sonant.report.films import still

Font = ImageFont.FreeTypeFont
Row = Mapping[str, Any]

WIDTH, HEIGHT = 152, 114
"""Pixels of a clip's picture."""
STRIP, GAP, HEAD, SIDE = 34, 8, 64, 206
"""Pixels of the label under a picture, between pictures, above all rows, and left of them."""
FEWEST = 7
"""Columns that the line at the head needs."""
PAPER, INK, SOFT = "#fdfdfc", "#1d2327", "#5c666d"
SOUNDS, SILENT, UNKNOWN = "#0a7a50", "#b3471d", "#a9afb3"


def contact_sheet(found: Mapping[str, Any], pack: Pack, out: Path, *, name: str = "") -> None:
    """Draw the clusters of one model, the largest first, as one PNG; sounds by their spectrograms.

    Under each clip stand its labels, and a bar: green if its action sounds, red if not, grey if
    that is not known.

    Args:
        found: the report's part on clusters.
        pack: where the clips are.
        out: the file to write.
        name: of the model; the first if not given.

    Raises:
        UsageError: there is no such model.
        SonantError: a clip is not in the pack, or the file cannot be written.
    """
    rows = {row["name"]: row for row in found["rows"]}
    if name and name not in rows:
        raise UsageError(f"no clusters of {name!r}; there are those of {', '.join(rows)}")
    demand_writable(Path(out))
    row = rows[name] if name else found["rows"][0]
    most = max(FEWEST, *(len(cluster["members"]) for cluster in row["clusters"]))
    line = HEIGHT + STRIP + GAP
    size = (SIDE + most * (WIDTH + GAP) + GAP, HEAD + len(row["clusters"]) * line + GAP)
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    _head(draw, found, row)
    pictures = _pictures(row, pack)
    for place, cluster in enumerate(row["clusters"]):
        top = HEAD + place * line
        _side(draw, cluster, place + 1, top)
        for column, member in enumerate(cluster["members"]):
            left = SIDE + column * (WIDTH + GAP)
            page.paste(pictures[member["id"]], (left, top))
            _strip(draw, member, left, top + HEIGHT)
    whole = io.BytesIO()
    page.save(whole, "PNG", optimize=True)
    with replacing(Path(out)) as partial:
        partial.write_bytes(whole.getvalue())


def _pictures(row: Row, pack: Pack) -> dict[str, Image.Image]:
    """Clip id to its `still`, cut to the size of a picture; grey where there is none."""
    places = {id: place for place, id in enumerate(pack.clips.column("id"))}
    ids = [member["id"] for cluster in row["clusters"] for member in cluster["members"]]
    if missing := [id for id in ids if id not in places]:
        raise SonantError(
            f"{pack.folder}: {len(missing)} of {len(ids)} clips are not in this pack, the first is "
            f"{missing[0]!r}; give the pack that was clustered"
        )
    return {id: _picture(still(pack.read(places[id], frames=1))) for id in ids}


def _picture(shown: Image.Image | None) -> Image.Image:
    if shown is None:
        return Image.new("RGB", (WIDTH, HEIGHT), UNKNOWN)
    return ImageOps.fit(shown, (WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _head(draw: ImageDraw.ImageDraw, found: Mapping[str, Any], row: Row) -> None:
    title = (
        f"{row['name']}: {row['clips']} clips ({found['split']}) in {len(row['clusters'])} "
        f"clusters of their {found['modality']} features"
    )
    measured = [
        f"{label}: purity {of['purity']['value']:.2f} (chance {of['purity']['chance']:.2f}), "
        f"AMI {of['ami']['value']:.2f}"
        for label, of in row["measures"].items()
    ]
    own = found["grouping"] == "assigned"
    method = "as the run found them" if own else f"{found['grouping']}, {found['metric']}"
    draw.text((GAP, GAP), title, INK, _font(18, bold=True))
    draw.text((GAP, GAP + 26), "   ·   ".join([method, *measured]), SOFT, _font(13))
    left = draw.im.size[0] - GAP
    for word, colour in (("not known", UNKNOWN), ("does not sound", SILENT), ("sounds", SOUNDS)):
        left -= int(_font(13).getlength(word)) + 16
        draw.rectangle((left - 18, GAP + 33, left - 6, GAP + 36), fill=colour)
        draw.text((left, GAP + 26), word, SOFT, _font(13))
        left -= 18


def _side(draw: ImageDraw.ImageDraw, cluster: Row, number: int, top: int) -> None:
    """What the cluster is, left of its clips."""
    about = [f"{cluster['clips']} clips of {cluster['videos']} videos"]
    about += [f"{one['value']} {one['share']:.0%}" for one in cluster["common"].values()]
    if cluster["sounding"] is not None:
        about.append(f"{cluster['sounding']:.0%} sound")
    if cluster["cosine"] is not None:
        about.append(f"mean cosine {cluster['cosine']:.2f}".replace("-", "−"))
    else:
        about.append(f"mean sq. distance {cluster['distance']:.3g}")
    draw.text((GAP, top), str(number), INK, _font(18, bold=True))
    for place, text in enumerate(about):
        font = _font(13)
        draw.text((GAP, top + 26 + 19 * place), _cut(text, font, SIDE - 2 * GAP), SOFT, font)


def _strip(draw: ImageDraw.ImageDraw, member: Row, left: int, top: int) -> None:
    """A clip's labels, or its narration where it has none, over a bar that says if it sounds."""
    sounding = member["sounding"]
    colour = UNKNOWN if sounding is None else SOUNDS if sounding else SILENT
    draw.rectangle((left, top, left + WIDTH - 1, top + 3), fill=colour)
    font = _font(12)
    text = " ".join(member["labels"].values()) or member["text"]
    draw.text((left, top + 7), _cut(text, font, WIDTH), INK, font)


def _cut(text: str, font: Font, width: int) -> str:
    """The text, shortened until it fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def _font(size: int, *, bold: bool = False) -> Font:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, size)
