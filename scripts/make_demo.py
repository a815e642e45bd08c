"""Make the three demo datasets of ``examples/demo`` from public packages.

Needs cairosvg and fonttools beside Pillow and numpy; examples/demo/README.md tells how to fetch the packages.
Only sources under a permissive licence are used; ATTRIBUTION.csv names the source of every image.
"""

import argparse
import csv
import io
import json
import logging
import random
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cairosvg
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont, ImageOps

Json = dict[str, Any]
SIDE = 128  # of every image, in pixels
LETTER_BOX, ICON_BOX, CLIP_BOX = 92, 96, 116  # the longer side of what is drawn
SAME = 4.0  # mean grey difference of 16x16 thumbnails below which two images count as one
LEAST = 16  # images of a class; a class with fewer is left out
UNDRAWN = ("<mask", "<animate", "<pattern")  # features that the SVG renderer does not draw well


@dataclass
class Item:
    """One image and where it comes from."""

    image: Image.Image
    source: str
    author: str
    licence: str
    url: str


@dataclass
class Dataset:
    """A dataset while it is made: (class, group, image), and a thumbnail of every image."""

    name: str
    description: str
    rows: list[tuple[str, str, Item]] = field(default_factory=list)
    thumbs: list[np.ndarray] = field(default_factory=list)

    def is_new(self, image: Image.Image) -> bool:
        """Whether the image is neither blank nor a copy of another one; if so, remember it."""
        thumb = np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
        others = np.stack([np.full_like(thumb, 255), *self.thumbs])
        if np.abs(others - thumb).mean(axis=(1, 2)).min() < SAME:
            return False
        self.thumbs.append(thumb)
        return True

    def add_class(self, label: str, group: str, items: Iterable[Item], count: int) -> None:
        """Add the first ``count`` images that differ."""
        before = len(self.thumbs)
        kept = list(islice((item for item in items if self.is_new(item.image)), count))
        if len(kept) < LEAST:
            del self.thumbs[before:]
            logging.warning("%s: class %r left out, %d images", self.name, label, len(kept))
            return
        self.rows += [(label, group, item) for item in kept]


def centred(image: Image.Image, box: int) -> Image.Image:
    """Scale a drawing with a transparent background into a box in the middle of a white square."""
    image = image.convert("RGBA")
    image = ImageOps.contain(
        image.crop(image.getchannel("A").getbbox()), (box, box), Image.Resampling.LANCZOS
    )
    canvas = Image.new("RGBA", (SIDE, SIDE), "white")
    canvas.alpha_composite(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return canvas.convert("RGB")


def one_line(text: str | None, limit: int = 90) -> str:
    """Shorten a text to one line without the hosts of e-mail addresses."""
    text = " ".join(re.sub(r"@[\w.-]+\.\w+|HASH\(\w+\)", "", text or "").split())
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + "…"


@dataclass
class Font:
    """A font file and the entries of its name table."""

    path: Path
    family: str
    regular: bool
    author: str
    licence: str
    url: str
    letters: frozenset[int]


def font_licence(text: str) -> str:
    """SPDX name of the licence a font states; empty if it is not a permissive one."""
    if "GPL" in text or "General Public" in text:
        return ""
    if any(words in text for words in ("Open Font License", "OPEN FONT LICENSE", "OFL")):
        return "OFL-1.1"
    return "Apache-2.0" if "Apache License" in text else ""


def read_font(path: Path) -> Font:
    """Read the name table and the letters of a font."""
    with TTFont(path, lazy=True) as font:
        names = [font["name"].getDebugName(number) or "" for number in range(18)]
        letters = frozenset(font.getBestCmap() or {})
    author = one_line(names[9] or names[8] or names[0])
    regular = (names[17] or names[2]) in {"Regular", "Book", "Roman", "Normal"}
    licence = font_licence(names[13] + " " + names[14])
    return Font(path, one_line(names[16] or names[1]), regular, author, licence, one_line(names[11]), letters)


def read_package(folder: Path) -> list[Font]:
    """One font for each family of a package, the regular cut if there is one."""
    families: dict[str, Font] = {}
    for path in sorted(folder.rglob("*.[ot]tf")):
        font = read_font(path) if path.exists() else None
        if font and font.licence and (font.family not in families or not families[font.family].regular):
            families[font.family] = font
    return list(families.values())


def draw_letter(letter: str, path: Path) -> Image.Image:
    """Draw one letter, black on white, its ink in the middle."""
    left, top, right, bottom = ImageFont.truetype(str(path), 200).getbbox(letter)
    font = ImageFont.truetype(str(path), 200 * LETTER_BOX / max(right - left, bottom - top, 1))
    image = Image.new("RGB", (SIDE, SIDE), "white")
    left, top, right, bottom = font.getbbox(letter)
    corner = ((SIDE - left - right) / 2, (SIDE - top - bottom) / 2)
    ImageDraw.Draw(image).text(corner, letter, font=font, fill="black")
    return image


def letter_items(letter: str, packages: dict[str, list[Font]], rng: random.Random) -> Iterator[Item]:
    """Draw a letter in one font of every package that has it, then in the second fonts, and so on."""
    order = []
    for package, fonts in packages.items():
        able = [font for font in fonts if ord(letter) in font.letters]
        rng.shuffle(able)
        order += [(turn, rng.random(), package, font) for turn, font in enumerate(able)]
    for _, _, package, font in sorted(order, key=lambda entry: entry[:2]):
        source = f"{package}: {font.path.name} ({font.family})"
        yield Item(draw_letter(letter, font.path), source, font.author, font.licence, font.url)


def make_letters(folder: Path, spec: Json, count: int, seed: int) -> Dataset:
    """Printed letters: class = letter, image = font."""
    data = Dataset("LETTERS", "Printed Latin, Greek and Cyrillic letters; class = letter, image = font")
    packages = {name: read_package(folder / name) for name in spec["fonts"]}
    for alphabet, letters in spec["letters"].items():
        for letter in letters:
            items = letter_items(letter, packages, random.Random(f"{seed}{letter}"))
            data.add_class(unicodedata.name(letter).lower(), alphabet, items, count)
    return data


def read_icon_sets(folder: Path, spec: Json) -> list[Json]:
    """Icon sets of one colour under a permissive licence."""
    sets = []
    for prefix, info in sorted(json.loads((folder / "collections.json").read_text(encoding="utf-8")).items()):
        wanted = info["license"].get("spdx") in spec["icon_licences"] and not info.get("palette")
        if wanted and info.get("category") not in spec["icon_kinds_skipped"]:
            sets.append(json.loads((folder / "json" / f"{prefix}.json").read_text(encoding="utf-8")))
    return sets


def draw_icon(icons: Json, name: str) -> Image.Image:
    """Draw one icon of a set, black on white."""
    icon = {"left": 0, "top": 0, "width": 16, "height": 16} | icons | icons["icons"][name]
    view = f"{icon['left']} {icon['top']} {icon['width']} {icon['height']}"
    size = f'width="{icon["width"]}" height="{icon["height"]}"'
    body = icon["body"].replace("currentColor", "#000")
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}" {size}>{body}</svg>'
    scale = 4 * ICON_BOX / max(icon["width"], icon["height"])
    return centred(Image.open(io.BytesIO(cairosvg.svg2png(svg.encode(), scale=scale))), ICON_BOX)


def icon_items(concept: str, sets: list[Json], skip: list[str], rng: random.Random) -> Iterator[Item]:
    """Draw the icon of that name from every set that has it, sets in random order."""
    for icons in rng.sample(sets, len(sets)):
        icon, info, name = icons["icons"].get(concept), icons["info"], f"{icons['prefix']}:{concept}"
        if icon and name not in skip and not any(tag in icon["body"] for tag in UNDRAWN):
            source = f"{info['name']} ({name})"
            author, licence = info["author"], info["license"]["spdx"]
            yield Item(draw_icon(icons, concept), source, author["name"], licence, author.get("url", ""))


def make_icons(folder: Path, spec: Json, count: int, seed: int) -> Dataset:
    """Pictograms: class = concept, image = icon set."""
    data = Dataset("ICONS", "User-interface icons; class = concept, image = icon set")
    sets = read_icon_sets(folder, spec)
    for concept in spec["concepts"]:
        items = icon_items(concept, sets, spec["icons_skipped"], random.Random(f"{seed}{concept}"))
        data.add_class(concept, "", items, count)
    return data


def clip_items(root: Path, folder: str, skip: list[str], rng: random.Random) -> Iterator[Item]:
    """Read the drawings of a folder in random order."""
    paths = sorted((root / folder).glob("*.png"))
    rng.shuffle(paths)
    for path in paths:
        if any(part in path.as_posix() for part in skip):
            continue
        with Image.open(path) as image:
            author = one_line(image.info.get("Author")) or "Open Clip Art Library"
            source = f"openclipart-png: {path.relative_to(root).as_posix()}"
            yield Item(centred(image, CLIP_BOX), source, author, "CC-PDDC", "")


def make_clipart(folder: Path, spec: Json, count: int, seed: int) -> Dataset:
    """Clip art: class = theme, which is a folder of the library."""
    data = Dataset("CLIPART", "Clip art drawings; class = theme")
    root = folder / "usr/share/openclipart/png"
    for theme in spec["themes"]:
        items = clip_items(root, theme, spec["clips_skipped"], random.Random(f"{seed}{theme}"))
        data.add_class(theme.split("/", 1)[-1].replace("/", " "), theme.split("/", 1)[0], items, count)
    return data


def write_csv(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    """Write a table, UTF-8."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def info_of(data: Dataset) -> Json:
    """Contents of info.json."""
    counts = list(Counter(label for label, _, _ in data.rows).values())
    groups = {group for _, group, _ in data.rows} - {""}
    return {
        "dataset_name": data.name,
        "dataset_description": data.description,
        "total_categories": len(counts),
        "total_super_categories": len(groups),
        "uniform_number_of_images_per_category": len(set(counts)) == 1,
        "minimum_images_per_category": min(counts),
        "median_images_per_category": statistics.median_low(counts),
        "maximum_images_per_category": max(counts),
        "has_super_categories": bool(groups),
        "image_column_name": "FILE_NAME",
        "category_column_name": "CATEGORY",
        "super_category_column_name": "SUPER_CATEGORY",
    }


def save(data: Dataset, out: Path, quality: int) -> None:
    """Write a dataset in Meta-Album layout with its attribution."""
    images = out / data.name / "images"
    images.mkdir(parents=True, exist_ok=True)
    labels = [("FILE_NAME", "CATEGORY", "SUPER_CATEGORY")]
    credit = [("FILE_NAME", "SOURCE", "AUTHOR", "LICENCE", "URL")]
    for number, (label, group, item) in enumerate(data.rows):
        name = f"{data.name}_{number:05d}.jpg"
        item.image.save(images / name, quality=quality, optimize=True)
        labels.append((name, label, group))
        credit.append((name, item.source, item.author, item.licence, item.url))
    write_csv(images.parent / "labels.csv", labels)
    write_csv(images.parent / "ATTRIBUTION.csv", credit)
    (images.parent / "info.json").write_text(json.dumps(info_of(data), indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Make the three datasets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    helps = {
        "spec": "examples/demo/sources.json",
        "fonts": "unpacked font packages, a folder for each one named in the spec",
        "icons": "unpacked npm package @iconify/json",
        "clipart": "unpacked Debian package openclipart-png",
        "out": "where to write",
    }
    for name, text in helps.items():
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PATH", help=text)
    parser.add_argument("--count", type=int, default=20, help="images per class")
    parser.add_argument("--quality", type=int, default=82, help="of the JPEG files")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    spec = json.loads(args.spec.read_text(encoding="utf-8"))
    for make, folder in ((make_letters, args.fonts), (make_icons, args.icons), (make_clipart, args.clipart)):
        save(make(folder, spec, args.count, args.seed), args.out, args.quality)


if __name__ == "__main__":
    main()
