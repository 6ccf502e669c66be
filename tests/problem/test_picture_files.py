"""Which files of an image folder are pictures, of which class, in which order; what is skipped, counted and refused."""

import os

import pytest

from harness.config import ConfigError
from harness.problem.picture_files import listed

KEY = "dataset.mine.root"


@pytest.fixture
def put(tmp_path):
    """A function that makes files below a root that has a picture of a and b in both parts, and gives the root."""

    def put(*names):
        for name in ("train/a/0.png", "train/b/0.png", "val/a/0.png", "val/b/0.png", *names):
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "root"

    return put


def below(root, items):
    return [(os.path.relpath(path, root), label) for path, label in items]


def test_the_class_is_the_first_folder_however_deep_a_picture_lies(put):
    """Also where a folder further down has the name of another class."""
    root = put("train/a/batch1/1.png", "train/a/b/deep/2.png", "val/b/a/1.png")
    found = listed(root, KEY)
    assert found.classes == ("a", "b")
    assert below(root, found.train) == [
        ("train/a/0.png", 0),
        ("train/a/b/deep/2.png", 0),
        ("train/a/batch1/1.png", 0),
        ("train/b/0.png", 1),
    ]
    assert below(root, found.val) == [("val/a/0.png", 0), ("val/b/0.png", 1), ("val/b/a/1.png", 1)]
    assert found.notes == ()


def test_every_ending_that_can_be_read_counts_in_whatever_letters(put):
    names = ("1.webp", "2.PNG", "3.Jpg", "4.bmp", "5.gif", "6.tif", "7.ppm", "8.avif", "9.JPEG")
    root = put(*(f"train/b/{name}" for name in names))
    assert [name for name, label in below(root, listed(root, KEY).train) if label == 1][1:] == [
        f"train/b/{name}" for name in names
    ]


def test_numbers_in_names_sort_as_numbers_and_equal_ones_as_text(put):
    """An order that leaves 1.png and 01.png to the file system is another one on another machine; ² is no number."""
    root = put("train/a/10.png", "train/a/9.png", "train/a/1.png", "train/a/01.png", "train/a/1²2.png")
    names = [name.rpartition("/")[2] for name, label in below(root, listed(root, KEY).train) if label == 0]
    assert names == ["0.png", "01.png", "1.png", "1²2.png", "9.png", "10.png"]


def test_what_systems_leave_is_skipped_in_silence(put):
    root = put(
        *("train/a/._0.png", "train/a/.DS_Store", "train/a/Thumbs.db", "train/a/.hidden/1.png", "train/.cache/1.png"),
        *("val/.ipynb_checkpoints/0.png", "val/__MACOSX/a/._0.png", "train/desktop.ini", "train/a/@eaDir/0.jpg"),
    )
    found = listed(root, KEY)
    assert (found.classes, len(found.train), len(found.val), found.notes) == (("a", "b"), 2, 2, ())


def test_a_root_may_lie_in_a_hidden_folder(tmp_path):
    for part in ("train", "val"):
        folder = tmp_path / ".cache" / part / "a"
        folder.mkdir(parents=True)
        (folder / "0.png").touch()
    assert len(listed(tmp_path / ".cache", KEY).train) == 1


def test_what_is_left_out_is_counted(put):
    root = put("train/a/x.txt", "train/a/y.heic", "val/b/z.HEIC", "train/a/none", "train/top.png", "val/README.md")
    assert listed(root, KEY).notes == (
        "5 files are left out whose ending is not that of a picture that PIL decodes "
        f"(.heic 2, none 1, .txt 1, .md 1), such as {root}/train/a/none",
        f"1 picture is left out beside the class folders, such as {root}/train/top.png",
    )


def test_classes_without_a_test_image_are_said(put):
    root = put("train/c/0.png", "train/d/0.png")
    (root / "val/c").mkdir()
    assert listed(root, KEY).notes == (f"2 of 4 classes have no picture in val: {root}/val/c, {root}/val/d",)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["val/c/0.png", "val/d/x/0.png"], "must have no classes in val that train lacks, got {}/val/c, {}/val/d"),
        (["train/c/.DS_Store"], "must hold images in every train/<class>/, got none in {}/train/c"),
        (
            ["train/c/0.heic", "train/c/1.heic"],
            "must hold images in every train/<class>/, got none in {}/train/c; 2 files are left out whose ending is "
            "not that of a picture that PIL decodes (.heic 2), such as {}/train/c/0.heic",
        ),
    ],
)
def test_classes_that_cannot_be_learnt_are_refused(put, names, message):
    root = put(*names)
    with pytest.raises(ConfigError) as caught:
        listed(root, KEY)
    assert str(caught.value) == f"{KEY} " + message.replace("{}", str(root))


def test_of_many_folders_a_few_are_named(put):
    root = put(*(f"val/new{index}/0.png" for index in range(12)))
    with pytest.raises(ConfigError, match=rf"got {root}/val/new0, {root}/val/new1, {root}/val/new10 and 9 more$"):
        listed(root, KEY)


def test_links_to_pictures_and_folders_are_followed(put, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/7.png").touch()
    root = put()
    (root / "train/a/linked").symlink_to(tmp_path / "store")
    (root / "train/b/8.png").symlink_to(tmp_path / "store/7.png")
    names = ["train/a/0.png", "train/a/linked/7.png", "train/b/0.png", "train/b/8.png"]
    assert [name for name, _ in below(root, listed(root, KEY).train)] == names


def test_links_that_lead_nowhere_or_back_are_refused(put):
    root = put()
    for name, target in (("train/a/back", ".."), ("val/b/1.png", "gone.png"), ("val/b/2.png", "2.png")):
        link = root / name
        link.symlink_to(target)
        message = "no folder that a link leads back to" if target == ".." else "files or links to files"
        with pytest.raises(ConfigError, match=rf"^dataset\.mine\.root must hold .*{message}, got {link}"):
            listed(root, KEY)
        link.unlink()
    os.mkfifo(root / "val/b/3.png")  # whoever opens it waits for a writer
    with pytest.raises(ConfigError, match=r"files or links to files, got .*3\.png$"):
        listed(root, KEY)


def test_val_is_another_folder_than_train(put, tmp_path):
    put()
    (tmp_path / "one").mkdir()
    for part in ("train", "val"):
        (tmp_path / "one" / part).symlink_to(tmp_path / "root/train")
    with pytest.raises(ConfigError, match="must hold other images in val than in train"):
        listed(tmp_path / "one", KEY)


def test_a_folder_that_cannot_be_read_is_refused(put, monkeypatch):
    """It is not a folder without pictures."""
    root, scan = put(), os.scandir

    def denied(folder):
        if str(folder).endswith("val/b"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr("os.scandir", denied)
    with pytest.raises(ConfigError, match=r"folders that can be read, got .*/val/b \(Permission denied\)$"):
        listed(root, KEY)


def test_a_training_part_without_classes_is_refused(put, tmp_path):
    root = put()
    (root / "train").rename(tmp_path / "elsewhere")
    (root / "train").mkdir()
    with pytest.raises(ConfigError, match=r"images in train/<class>/, got no folder in .*train$"):
        listed(root, KEY)


@pytest.fixture
def laid(tmp_path):
    """A function that makes files below an empty root, and gives the root."""

    def laid(*names):
        for name in names:
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "root"

    return laid


@pytest.mark.parametrize("train", ["train", "Train", "training"])
@pytest.mark.parametrize("test", ["val", "TEST", "valid", "validation"])
def test_the_test_part_has_one_of_its_usual_names(laid, train, test):
    found = listed(laid(f"{train}/a/0.png", f"{train}/b/0.png", f"{test}/b/1.png"), KEY)
    assert (found.classes, len(found.train), len(found.val)) == (("a", "b"), 2, 1)


def test_of_several_test_parts_val_is_taken_and_that_is_said(laid):
    found = listed(laid("train/a/0.png", "val/a/0.png", "test/a/0.png", "test/a/1.png"), KEY)
    assert len(found.val) == 1
    assert found.notes == ("test/ left out: val/ is taken",)


@pytest.mark.parametrize("folder", ["", "train/", "val/", "Test/"])
def test_class_folders_alone_are_one_set_of_pictures(laid, folder):
    """In the root itself, or in the one folder that it has."""
    root = laid(f"{folder}cat/0.png", f"{folder}cat/deep/1.png", f"{folder}dog/0.png")
    found = listed(root, KEY)
    assert (found.classes, found.val, found.parts) == (("cat", "dog"), (), (root / folder,))
    assert [label for _, label in found.train] == [0, 0, 1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["pets/train/a/0.png", "pets/val/a/0.png"], r"with the one folder pets: dataset\.mine\.root=.*/root/pets$"),
        (["images/cat/0.png", "images/dog/0.png"], r"one folder images: dataset\.mine\.root=.*/root/images$"),
        (
            ["0.png", "1.jpg"],
            r"a folder per class, .* got 2 directly in .*root, such as 0\.png: move each to the folder",
        ),
        (["cat/0.png", "cat/1.png"], r"folders of at least 2 classes, got .*root with cat alone$"),
        (["val/a/0.png", "test/a/0.png"], r"got .*root with test, val and without train$"),
        (["notes.txt"], r"or a folder per class, got no folder in .*root$"),
        (["cat/0.png", "dog/0.txt"], r"hold images in every <class>/, got none in .*root/dog; 1 file is left out"),
    ],
)
def test_roots_that_are_laid_out_otherwise_are_told_what_to_do(laid, names, message):
    with pytest.raises(ConfigError, match=rf"^dataset\.mine\.root must .*{message}"):
        listed(laid(*names), KEY)


def test_a_folder_that_changes_is_looked_into_again(put):
    root = put()
    before = listed(root, KEY)
    assert listed(root, KEY) is before
    os.utime(root / "train/a", ns=(0, 0))
    (root / "train/a/1.png").touch()
    assert len(listed(root, KEY).train) == 3
