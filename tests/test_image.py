"""Pictures as people have them: turned, transparent, in any mode and depth, in pages; and files that are none."""

from __future__ import annotations

import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from phi4mm_cli.errors import InputError
from phi4mm_cli.media import audio, image
from phi4mm_cli.schema import Picture

ORIENTATIONS = range(1, 9)


def scene(width: int = 60, height: int = 40) -> Image.Image:
    """Blocks of another colour in each corner."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)


def saved(folder: Path, picture: Image.Image, kind: str, **options: object) -> Path:
    path = folder / f"picture.{kind.lower()}"
    picture.save(path, kind, **options)
    return path


def read(path: Path, page: int | None = None, time: float | None = None) -> Image.Image:
    return image.read(Picture(audio.source(path), page, time))


def values(picture: Image.Image) -> NDArray[np.int64]:
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(np.int64)


# ------------------------------------------------------------------------------------------------- as it is seen


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turned_pictures_are_put_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    upright = scene()
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_270"}  # how a camera that is held so stores what it sees
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose[turns[orientation]])
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    path = saved(tmp_path, stored, kind, exif=exif, **options)
    seen = read(path)
    assert np.abs(values(seen) - values(upright)).max() <= 3
    assert image.image_size(path) == seen.size == (60, 40)


def turned(how: str) -> Image.Exif | PngImagePlugin.PngInfo:
    """What says of a PNG that it was taken with the camera on its side."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    told = PngImagePlugin.PngInfo()
    if how == "XMP":
        told.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>')
    elif how == "profile":
        content = exif.tobytes()
        told.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n", zip=True)
    return exif if how == "eXIf" else told


@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("how", ["eXIf", "XMP", "profile"])
def test_a_png_is_as_large_as_it_is_seen(tmp_path: Path, how: str, behind: bool) -> None:
    said = turned(how)
    path = saved(tmp_path, scene(), "PNG", **{"exif" if isinstance(said, Image.Exif) else "pnginfo": said})
    content = path.read_bytes()
    name = {"eXIf": b"eXIf", "XMP": b"iTXt", "profile": b"zTXt"}[how]
    start = content.index(name) - 4
    chunk = content[start : start + 12 + int.from_bytes(content[start : start + 4], "big")]
    if behind:
        content = content.replace(chunk, b"")
        path.write_bytes(content[:-12] + chunk + content[-12:])  # in front of the end
    assert (path.read_bytes().index(name) > path.read_bytes().index(b"IDAT")) == behind
    assert image.image_size(path) == read(path).size == (40, 60)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    half = scene()
    half.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 60).round().astype(np.uint8), (40, 1))))
    seen = values(read(saved(tmp_path, half, "PNG")))
    assert (seen[:, 0] == 255).all()
    assert (seen[0, -1] == (0, 255, 0)).all()
    assert np.abs(seen[0, 29] - (255, 130, 130)).max() <= 2  # as much of red as of white
    palette = scene().convert("P", palette=Image.Palette.ADAPTIVE)
    red = palette.getpixel((0, 0))
    seen = values(read(saved(tmp_path, palette, "GIF", transparency=red)))
    assert (seen[0, 0] == 255).all()
    assert (seen[0, -1] == (0, 255, 0)).all()
    seen = values(read(saved(tmp_path, scene(), "PNG", transparency=(255, 0, 0))))  # one colour stands for nothing
    assert (seen[0, 0] == 255).all()


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr"])
def test_colours_in_any_mode(tmp_path: Path, mode: str) -> None:
    kind = {"P": "PNG", "CMYK": "TIFF", "YCbCr": "TIFF"}[mode]
    seen = values(read(saved(tmp_path, scene().convert(mode), kind)))
    assert np.abs(seen - values(scene())).max() <= 3


def test_inverted_cmyk_of_photo_programs(tmp_path: Path) -> None:
    seen = values(read(saved(tmp_path, scene().convert("CMYK"), "JPEG", quality=100)))
    assert np.abs(seen[5, 5] - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (np.linspace(0, 65535, 256).astype(np.uint16), "PNG"),
        (np.linspace(0, 65535, 256).astype(np.uint16), "TIFF"),
        (np.linspace(0, 2**31 - 1, 256).astype(np.int32), "TIFF"),
        (np.linspace(0, 1, 256).astype(np.float32), "TIFF"),
        (np.linspace(0, 255, 256).astype(np.float32), "TIFF"),
        (np.linspace(-300, 900, 256).astype(np.float32), "TIFF"),
        (np.arange(256).astype(np.uint8), "PNG"),
    ],
)
def test_greys_of_any_depth(tmp_path: Path, stored: NDArray[np.generic], kind: str) -> None:
    seen = values(read(saved(tmp_path, Image.fromarray(np.tile(stored, (20, 1))), kind)))
    assert np.abs(seen - np.arange(256)[None, :, None]).max() <= 1


def test_black_and_white(tmp_path: Path) -> None:
    bits = Image.fromarray(np.indices((20, 30)).sum(0) % 2 == 0)
    seen = values(read(saved(tmp_path, bits, "TIFF", compression="group4")))
    assert (seen[..., 0] == 255 * (np.indices((20, 30)).sum(0) % 2 == 0)).all()


# ---------------------------------------------------------------------------------------------- pages and frames


def test_pages_are_counted_from_one(tmp_path: Path) -> None:
    shades = [Image.new("RGB", (20 + shade, 30), (shade,) * 3) for shade in (10, 20, 30)]
    path = saved(tmp_path, shades[0], "TIFF", save_all=True, append_images=shades[1:])
    assert [values(read(path, page))[0, 0, 0] for page in (None, 1, 2, 3)] == [10, 10, 20, 30]
    assert [image.image_size(path, page)[0] for page in (None, 1, 2, 3)] == [30, 30, 40, 50]
    for page in (0, 4):
        with pytest.raises(InputError, match=f"no page {page}") as caught:
            read(path, page)
        assert "pages 1 to 3" in caught.value.advice
    with pytest.raises(InputError, match="no page 2"):
        image.image_size(saved(tmp_path, shades[0], "PNG"), 2)


def video(path: Path, first: float = 0.0) -> Path:
    """Ten frames a second, each lighter than the one before; one in five stands for itself."""
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.gop_size = 64, 48, 5
        stream.bit_rate = 2_000_000
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + round(10 * first), Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("suffix", "first"), [("mp4", 0.0), ("mkv", 0.0), ("mkv", 3.0)])
def test_frames_of_a_video(tmp_path: Path, suffix: str, first: float) -> None:
    path = video(tmp_path / f"a.{suffix}", first)
    for time, number in ((0.0, 0), (0.05, 0), (0.31, 3), (0.99, 9), (1.01, 10), (1.49, 14), (1.9, 19), (60.0, 19)):
        shade = values(read(path, time=time)).mean()
        assert abs(shade - 10 * number) < 4, (time, number)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_pictures_are_refused(tmp_path: Path, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8))
    whole = saved(tmp_path, noise, kind).read_bytes()
    path = tmp_path / "cut"
    for share in (0.01, 0.3, 0.7, 0.97):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError) as caught:
            read(path)
        assert caught.value.advice
        assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"just a note\n", "not a picture"),
        (b"%PDF-1.7\n", "PDF"),
        (b"RIFF\0\0\0\0WAVEfmt ", "recording"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", "video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture"),  # a program, which Pillow would run
        (b"P6 0 10 255\n", "picture"),
        (b"BM" + bytes(200), "picture"),
    ],
)
def test_files_that_are_no_picture(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for attempt in (lambda: read(path), lambda: image.image_size(path)):
        with pytest.raises(InputError, match=words) as caught:
            attempt()
        assert caught.value.advice


def test_missing_and_changed_files(tmp_path: Path) -> None:
    path = saved(tmp_path, scene(), "PNG")
    source = audio.source(path)
    saved(tmp_path, scene(61, 40), "PNG")
    with pytest.raises(InputError, match="changed"):
        image.read(Picture(source))
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        image.read(Picture(source))
    with pytest.raises(InputError, match="not a video"):
        read(saved(tmp_path, scene(), "TIFF"), time=1.0)


def test_pictures_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """A few bytes can promise any size."""
    path = tmp_path / "bomb.pgm"
    path.write_bytes(b"P5 30000 30000 255\n")
    for attempt in (lambda: read(path), lambda: image.image_size(path)):
        with pytest.raises(InputError, match="178,956,970 pixels"):
            attempt()


def test_large_pictures_and_odd_headers_are_read_in_silence(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("1", (10_000, 9_500)).save(large)
    exif = io.BytesIO()
    scene().save(exif, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(20))
    (tmp_path / "odd.jpg").write_bytes(exif.getvalue())
    code = "import sys; from phi4mm_cli.media import image; [print(image.image_size(path)) for path in sys.argv[1:]]"
    run = subprocess.run(
        [sys.executable, "-c", code, large, tmp_path / "odd.jpg"], capture_output=True, encoding="utf-8", check=True
    )
    assert (run.stdout, run.stderr) == ("(10000, 9500)\n(60, 40)\n", "")
    assert read(tmp_path / "odd.jpg").size == (60, 40)
