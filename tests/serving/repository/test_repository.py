import onnx_files
import pytest

from keras_blocks.errors import ModelLoadError
from keras_blocks.serving import ModelNotFoundError, load_repository


def test_versions_are_numbers_and_the_highest_is_the_default(repository):
    assert repository.versions("double") == [1, 2, 10]
    assert repository.get("double").version == 10
    assert repository.get("double", 2).version == repository.get("double", "2").version == 2
    assert repository.get("double", 2).name == "double"


@pytest.mark.parametrize("version", ["3", "01", "", "1.0", "-1", "latest", "\u0661"])
def test_a_version_that_is_not_there_is_not_found(repository, version):
    with pytest.raises(ModelNotFoundError, match="its versions are 1, 2, 10"):
        repository.get("double", version)


def test_an_unknown_model_is_answered_with_the_known_ones(repository):
    with pytest.raises(ModelNotFoundError, match="'nope' is unknown; the models are 'add_bias'"):
        repository.get("nope")


def test_what_does_not_load_is_reported_and_the_rest_is_served(tmp_path):
    onnx_files.double(tmp_path / "good" / "1" / "model.onnx")
    (tmp_path / "good" / "2").mkdir()
    (tmp_path / "good" / "notes").mkdir()
    onnx_files.double(tmp_path / "good" / "03" / "model.onnx")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("not a model")
    broken = tmp_path / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_text("not ONNX")
    repository = load_repository(tmp_path)
    assert list(repository.models) == ["good"]
    assert repository.versions("good") == [1]
    about_broken, about_empty, about_missing = repository.problems
    assert about_broken == f"{broken}: Protobuf parsing failed."
    assert about_empty.startswith(f"{tmp_path / 'empty'}: no version in it")
    assert about_missing.startswith(f"{tmp_path / 'good' / '2' / 'model.onnx'}: there is no such")


def test_a_folder_without_a_model_that_loads_is_an_error(tmp_path):
    with pytest.raises(ModelLoadError, match="does not exist"):
        load_repository(tmp_path / "nope")
    with pytest.raises(ModelLoadError, match="is a file"):
        load_repository(onnx_files.double(tmp_path / "model.onnx"))
    broken = tmp_path / "m" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_text("not ONNX")
    with pytest.raises(ModelLoadError, match=r"could be loaded; .*Protobuf parsing failed"):
        load_repository(tmp_path)


def test_a_folder_without_models_is_a_repository_too(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("to come")
    repository = load_repository(tmp_path)
    assert (repository.models, repository.problems) == ({}, ())
    with pytest.raises(ModelNotFoundError, match="the models are none"):
        repository.get("m")


def test_links_lead_within_the_repository_but_not_out_of_it(tmp_path):
    outside = onnx_files.double(tmp_path / "outside" / "model.onnx")
    inside = tmp_path / "models"
    onnx_files.double(inside / "double" / "1" / "model.onnx")
    (inside / "double" / "2").symlink_to("1")
    (inside / "same").symlink_to("double")
    (inside / "folder").mkdir()
    (inside / "folder" / "1").symlink_to(outside.parent)
    (inside / "file" / "1").mkdir(parents=True)
    (inside / "file" / "1" / "model.onnx").symlink_to(outside)
    repository = load_repository(inside)
    assert {name: list(models) for name, models in repository.models.items()} == {
        "double": [1, 2],
        "same": [1, 2],
    }
    assert [problem.count("it is a link out of") for problem in repository.problems] == [1, 1]
