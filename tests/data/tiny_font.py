"""A font of coloured bitmaps and its names, as Noto Color Emoji and CLDR have them, in small."""

import io
from pathlib import Path
from xml.sax.saxutils import quoteattr

from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import newTable
from fontTools.ttLib.tables.BitmapGlyphMetrics import SmallGlyphMetrics
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_17
from fontTools.ttLib.tables.E_B_L_C_ import BitmapSizeTable, SbitLineMetrics, Strike, eblc_index_sub_table_1
from PIL import Image


def disc(colour, width=17, height=13, edge=4):
    """An opaque rectangle, `edge` pixels from every side of a clear picture, as bytes of a PNG."""
    picture = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    picture.paste((*colour, 255), (edge, edge, width - edge, height - edge))
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def write(folder: Path, emoji: dict[str, tuple[str, bytes]], words: dict[str, str]) -> dict[str, str]:
    """Write a font of {emoji: (name, PNG)}, and their names and further words; returns the options that find them."""
    signs = sorted({sign for one in emoji for sign in one})
    glyph = {one: "_".join(f"u{ord(sign):X}" for sign in one) for one in (*signs, *emoji)}
    order = [".notdef", *dict.fromkeys(glyph.values())]
    made = FontBuilder(1024, isTTF=True)
    made.setupGlyphOrder(order)
    made.setupCharacterMap({ord(sign): glyph[sign] for sign in signs})
    made.setupHorizontalMetrics(dict.fromkeys(order, (1024, 0)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupOS2()
    made.setupPost()
    rules = "".join(f"  sub {' '.join(glyph[sign] for sign in one)} by {glyph[one]};\n" for one in emoji if len(one) > 1)
    if rules:
        addOpenTypeFeaturesFromString(made.font, f"feature ccmp {{\n{rules}}} ccmp;")

    bitmaps = {}
    for one in sorted(emoji, key=lambda one: order.index(glyph[one])):
        bitmap = cbdt_bitmap_format_17(b"", made.font)
        bitmap.metrics = SmallGlyphMetrics()
        for name in ("height", "width", "BearingX", "BearingY", "Advance"):
            setattr(bitmap.metrics, name, 16)
        bitmap.imageData = emoji[one][1]
        bitmaps[glyph[one]] = bitmap
    made.font["CBDT"] = data = newTable("CBDT")
    data.version, data.strikeData = 3.0, [bitmaps]
    strike, size = Strike(), BitmapSizeTable()
    for way in ("hori", "vert"):
        line = SbitLineMetrics()
        for name in ("ascender", "descender", "widthMax", "caretSlopeNumerator", "caretSlopeDenominator", "caretOffset",
                     "minOriginSB", "minAdvanceSB", "maxBeforeBL", "minAfterBL", "pad1", "pad2"):  # fmt: skip
            setattr(line, name, 0)
        setattr(size, way, line)
    size.colorRef, size.ppemX, size.ppemY, size.bitDepth, size.flags = 0, 16, 16, 32, 1
    numbers = [order.index(name) for name in bitmaps]
    size.startGlyphIndex, size.endGlyphIndex = min(numbers), max(numbers)
    index = eblc_index_sub_table_1(b"", made.font)
    index.names, index.indexFormat, index.imageFormat = list(bitmaps), 1, 17
    index.firstGlyphIndex, index.lastGlyphIndex = min(numbers), max(numbers)
    strike.bitmapSizeTable, strike.indexSubTables = size, [index]
    made.font["CBLC"] = places = newTable("CBLC")
    places.version, places.strikes = 3.0, [strike]
    made.save(folder / "tiny.ttf")

    for part, here in (("annotations", lambda one: len(one) == 1), ("annotationsDerived", lambda one: len(one) > 1)):
        lines = [f"<annotation cp={quoteattr(one)}>{words[one]}</annotation>" for one in words if here(one)]
        lines += [f'<annotation cp={quoteattr(one)} type="tts">{emoji[one][0]}</annotation>' for one in emoji if here(one)]
        (folder / part).mkdir()
        (folder / part / "en.xml").write_text(f"<ldml><annotations>{''.join(lines)}</annotations></ldml>", "utf-8")
    return {"font": str(folder / "tiny.ttf"), "annotations": str(folder)}
