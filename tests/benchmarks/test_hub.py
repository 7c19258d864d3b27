"""The models of KerasHub, small and with random weights, are exported and proven."""

import pytest

pytest.importorskip("keras_hub")

import hub
import hub_tasks
from conformance_report import REFUSED, RIGHT
from conformance_worker import Task

from keras_blocks.export import export_onnx

pytestmark = pytest.mark.filterwarnings("ignore")
SECONDS = 1.0  # for a proof; more is done by `benchmarks/hub.py`
# Minutes or gigabytes; or an op that is left to others (see docs/conformance_keras_hub.md).
LEFT = (
    "BASNetBackbone", "DFineBackbone", "DeepLabV3Backbone", "DepthAnythingBackbone",
    "FNetBackbone", "Qwen3_5Backbone", "Qwen3_5MoeBackbone", "RWKV7Backbone",
    "StableDiffusion3Backbone",
)  # fmt: skip
TASKS = (
    "BertMaskedLM", "BertTextClassifier", "BartSeq2SeqLM", "GemmaCausalLM", "LlamaCausalLM step",
    "LlamaCausalLM loop", "BloomCausalLM step", "GPT2CausalLM loop", "MixtralCausalLM step",
    "RetinaNetObjectDetector", "ViTImageClassifier", "XLMRobertaTextEmbedder",
)  # fmt: skip
NAMES = [name for name in hub_tasks.CASES if name not in LEFT] + list(TASKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_keras_hub_is_exported(name, tmp_path):
    build = hub_tasks.all_cases()[name]
    model = build()
    result = export_onnx(
        model,
        tmp_path / "m.onnx",
        input_signature=hub_tasks.signature_of_case(name, model),
        verify="fast",
        time_budget=SECONDS,
        verbose=False,
    )
    assert result.parity.ok


def test_the_cases_have_names_that_exist():
    assert not set(LEFT + TASKS) - set(hub_tasks.all_cases())


def test_the_page_counts_what_is_right_and_gives_the_reasons_of_the_rest():
    done = {
        Task("A", "", "ours"): {"status": RIGHT, "reason": ""},
        Task("A", "", "stock"): {"status": REFUSED, "reason": "no"},
        Task("B", "", "ours"): {"status": REFUSED, "reason": "too new"},
    }
    page = hub.markdown(["A", "B"], done)
    assert "| all that were run | 1 of 2 | 0 of 1 |" in page
    assert "- B: too new" in page
