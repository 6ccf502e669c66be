"""One image file as values 0..255: each mode, range and frame has the values that it was made with, or is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from harness.problem.pictures import (
    FRAMES,
    LONGEST,
    TRANSPARENT,
    TURNED,
    WIDENED,
    UnreadablePicture,
    examine,
    picture_endings,
    read_picture,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.fixture
def saved(tmp_path):
    """A function that saves an image, or bytes, and gives the path."""

    def save(image, name, **options):
        path = tmp_path / name
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path, **options)
        return str(path)

    return save


def values(path, mode="RGB"):
    return np.asarray(read_picture(path, mode))


def grey_in_colour(grey):
    return np.stack([grey] * 3, axis=-1)


@pytest.mark.parametrize("name", ["16.png", "16.tif", "16.jp2", "16.pgm"])
def test_16_bits_a_pixel_become_8(saved, name):
    """White is 65,535 = 257 * 255, so 257 times an 8-bit value is that value."""
    wide = GREY.astype(np.uint16) * 257
    whole = b"P5 9 6 65535\n" + wide.astype(">u2").tobytes() if name == "16.pgm" else Image.fromarray(wide)
    path = saved(whole, name)
    assert np.array_equal(values(path), grey_in_colour(GREY))
    assert np.array_equal(values(path, "L"), GREY)
    found = examine(path)
    assert (found.done, found.refusal, found.brightest) == ((WIDENED,), None, 257 * int(GREY.max()))


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (Image.fromarray(GREY.astype(np.int32)), "integers.tif"),
        (Image.fromarray(GREY.astype(np.float32)), "floats.tif"),
        (b"Pf\n9 6\n-1.0\n" + GREY.astype("<f4").tobytes(), "floats.pfm"),
    ],
)
def test_values_of_unknown_range_are_refused_by_name(saved, image, name):
    path = saved(image, name)
    with pytest.raises(UnreadablePicture, match=rf"{name} must be an image that can be read: nothing tells which"):
        read_picture(path, "RGB")
    assert "nothing tells which" in examine(path).refusal


def test_a_tiff_whose_white_is_zero_is_refused_at_16_bits(saved):
    """PIL leaves such values as they are, which would be the negative."""
    path = saved(Image.fromarray(GREY.astype(np.uint16)), "negative.tif", tiffinfo={262: 0})
    assert "nothing tells which" in examine(path).refusal


def test_transparent_parts_are_white(saved):
    """Whatever colours an editor left below them: two black shapes on nothing must not become the same black square."""
    alpha = np.full((6, 9, 1), 255, dtype=np.uint8)
    alpha[2:4] = 0
    expected = COLOUR.copy()
    expected[2:4] = 255
    path = saved(Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)), "alpha.png")
    assert np.array_equal(values(path), expected)
    assert examine(path).done == (TRANSPARENT,)
    grey = saved(Image.fromarray(np.concatenate([GREY[..., None], alpha], axis=2)), "alpha_grey.png")
    assert np.array_equal(values(grey, "L"), np.where(alpha[..., 0] == 0, 255, GREY))


def test_an_alpha_channel_that_hides_nothing_changes_nothing(saved):
    alpha = np.full((6, 9, 1), 255, dtype=np.uint8)
    path = saved(Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)), "opaque.png")
    assert np.array_equal(values(path), COLOUR)
    assert examine(path).done == ()


def test_palettes_have_their_colours_and_a_transparent_entry_is_white(saved):
    indices = RNG.integers(0, 4, (6, 9), dtype=np.uint8)
    colours = RNG.integers(0, 255, (4, 3), dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    for name in ("palette.png", "palette.gif"):
        assert np.array_equal(values(saved(image, name)), colours[indices])
    path = saved(image, "transparent.png", transparency=2)
    colours[2] = 255
    assert np.array_equal(values(path), colours[indices])


def test_other_modes(saved):
    bits = GREY > 128
    assert np.array_equal(values(saved(Image.fromarray(bits), "bits.png")), grey_in_colour(bits * 255))
    inks = 255 - COLOUR  # with no black, red is what cyan leaves
    four = Image.fromarray(np.concatenate([inks, np.zeros((6, 9, 1), dtype=np.uint8)], axis=2), mode="CMYK")
    assert np.array_equal(values(saved(four, "inks.tif")), COLOUR)
    deep = COLOUR.astype(np.uint16) * 257
    path = saved(b"P6 9 6 65535\n" + deep.astype(">u2").tobytes(), "deep.ppm")
    assert np.array_equal(values(path), COLOUR)


@pytest.mark.parametrize("name", ["several.png", "several.gif", "several.webp", "several.tif"])
def test_of_several_frames_the_first_is_taken(saved, name):
    frames = [Image.new("RGB", (9, 6), colour) for colour in ("red", "lime", "blue")]
    path = saved(frames[0], name, save_all=True, append_images=frames[1:])
    assert np.abs(values(path).astype(int) - (255, 0, 0)).max() <= 1
    assert examine(path).done == (FRAMES,)


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda upright: upright),
        (2, np.fliplr),
        (3, lambda upright: np.rot90(upright, 2)),
        (4, np.flipud),
        (5, lambda upright: upright.swapaxes(0, 1)),
        (6, np.rot90),
        (7, lambda upright: np.rot90(upright.swapaxes(0, 1), 2)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_a_picture_is_upright(saved, orientation, turned, ending):
    """EXIF says where the first row and column of what is stored lie; 6, say: the first row is at the right."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if ending == "webp" else {}
    path = saved(Image.fromarray(turned(COLOUR).copy()), f"turned.{ending}", exif=exif, **options)
    assert np.array_equal(values(path), COLOUR)
    assert examine(path).done == ((TURNED,) if orientation > 1 else ())


def test_damaged_exif_data_leave_the_picture_as_it_is(saved):
    path = saved(Image.new("RGB", (9, 6), "red"), "odd.jpg", exif=b"Exif\0\0II*\0no such thing \xff\xff")
    assert values(path).shape == (6, 9, 3)
    assert examine(path).refusal is None


def png(image=None, **options):
    made = io.BytesIO()
    (Image.fromarray(np.tile(COLOUR, (9, 9, 1))) if image is None else image).save(made, "PNG", **options)
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "PIL finds no picture"),
        (png()[:-200], "truncated"),
        (png().replace(b"IDAT", b"ID\xffT"), ""),
        (png(Image.new("1", (30000, 30000))), "decompression bomb"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_its_reason(saved, content, reason):
    path = saved(content, "damaged.png")
    assert reason in examine(path).refusal
    with pytest.raises(UnreadablePicture, match=r"damaged\.png must be an image that can be read: \S"):
        read_picture(path, "RGB")


def test_a_jpeg_that_ends_too_soon_is_seen_at_an_eighth_of_its_size(saved):
    made = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(made, "JPEG")
    whole = made.getvalue()
    assert examine(saved(whole, "whole.jpg")).refusal is None
    assert "truncated" in examine(saved(whole[:-1000], "cut.jpg")).refusal


def test_a_file_that_cannot_be_opened_is_refused_with_its_reason(tmp_path):
    assert examine(str(tmp_path / "gone.png")).refusal == "No such file or directory"
    assert examine(str(tmp_path)).refusal == "Is a directory"


def test_of_a_very_narrow_picture_the_middle_is_taken(saved):
    """Resized to 256 pixels of height it would have tens of millions of columns."""
    row = np.zeros((1, LONGEST + 4), dtype=np.uint8)
    row[0, [1, 2, -3, -2]] = 1, 2, 3, 4
    middle = values(saved(Image.fromarray(row), "narrow.png"), "L")
    assert middle.shape == (1, LONGEST)
    assert (middle[0, 0], middle[0, -1]) == (2, 3)


def test_endings_of_what_is_decoded():
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".mpo"} <= picture_endings()
    assert not {".txt", ".pdf", ".eps", ".h5", ".mpg", ".heic", ""} & picture_endings()
