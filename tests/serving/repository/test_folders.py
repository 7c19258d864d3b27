"""What tells the files of a model apart: whatever changes what is read shows in their state."""

import os
import shutil

import pytest

from keras_blocks.serving.repository.folders import folder_state

YEAR_1970 = (0, 0)  # as files of OCI images have


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, YEAR_1970)
    return path


def relink(link, target):
    new = link.with_name("new_link")
    new.symlink_to(target)
    os.replace(new, link)


def move_over(root):
    os.replace(write(root / "other", b"new"), root / "m" / "1" / "model.onnx")


def copy_over(root):
    shutil.copy2(write(root / "other", b"new"), root / "m" / "1" / "model.onnx")


def write_in_place(root):
    write(root / "m" / "1" / "model.onnx", b"new")


def write_weights(root):
    write(root / "m" / "1" / "weights" / "part.bin", b"new")


def relink_file(root):
    relink(root / "m" / "2" / "model.onnx", root / "store" / "b" / "model.onnx")


def relink_in_the_middle(root):
    relink(root / "store" / "current", "b")


def relink_version(root):
    relink(root / "m" / "3", root / "store" / "b")


def move_into_linked_version(root):
    os.replace(write(root / "other", b"new"), root / "store" / "a" / "model.onnx")


def relink_model(root):
    shutil.copytree(root / "m", root / "m2", symlinks=True)
    os.replace(write(root / "other", b"new"), root / "m2" / "1" / "model.onnx")
    relink(root / "linked", "m2")


CHANGES = [
    move_over, copy_over, write_in_place, write_weights, relink_file, relink_in_the_middle,
    relink_version, move_into_linked_version, relink_model,
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A model that is a link itself, with a version of files, of linked files, and a linked one.

    Every file is of one size and one time, before and after each change.
    """
    write(tmp_path / "m" / "1" / "model.onnx", b"old")
    write(tmp_path / "m" / "1" / "weights" / "part.bin", b"old")
    for name in ("a", "b"):
        write(tmp_path / "store" / name / "model.onnx", b"old")
    (tmp_path / "store" / "current").symlink_to("a")
    (tmp_path / "m" / "2").mkdir()
    (tmp_path / "m" / "2" / "model.onnx").symlink_to(tmp_path / "store" / "a" / "model.onnx")
    (tmp_path / "m" / "3").symlink_to(tmp_path / "store" / "a")
    (tmp_path / "m" / "4").mkdir()
    (tmp_path / "m" / "4" / "model.onnx").symlink_to("../../store/current/model.onnx")
    (tmp_path / "m" / "5").symlink_to("../store/current")
    (tmp_path / "linked").symlink_to("m")
    return tmp_path


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_of_the_same_size_and_time_with_other_content_is_another_state(folder, change):
    before = folder_state(folder / "linked")
    assert folder_state(folder / "linked") == before
    change(folder)
    assert folder_state(folder / "linked") != before


def test_the_files_behind_a_linked_folder_are_among_those_of_its_model(folder):
    names = [entry[0] for entry in folder_state(folder / "linked")]
    assert {"3/", "3/model.onnx", "5/model.onnx", "1/weights/part.bin"} <= set(names)


def test_links_that_lead_in_a_circle_or_nowhere_end(folder):
    (folder / "m" / "1" / "up").symlink_to("..")
    (folder / "m" / "1" / "itself").symlink_to("itself")
    (folder / "m" / "1" / "gone").symlink_to("nowhere")
    names = [entry[0] for entry in folder_state(folder / "m")]
    assert "1/model.onnx" in names
    assert len(names) < 40
