"""Who may import whom: the rooms of the house, each of which knows only what stands below it."""

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOMES = {
    "keras_blocks": ROOT / "keras_blocks",
    "keras_blocks.export": ROOT / "export",
    "keras_blocks.serving": ROOT / "serving",
}


def modules():
    """The file of every module, by its full name."""
    found = {}
    for package, home in HOMES.items():
        for path in home.rglob("*.py"):
            inner = path.relative_to(home).with_suffix("").parts
            # The links keras_blocks/export and keras_blocks/serving show the same files again.
            if package == "keras_blocks" and inner[0] in ("export", "serving"):
                continue
            found[".".join((package, *inner)).removesuffix(".__init__")] = path
    return found


MODULES = modules()


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: these tests read files."""


# The rooms, lowest first. A room may import those on lines above its own, and itself.
ROOMS = [
    ["errors"],
    ["lazy"],
    ["contract.spec", "contract.tree_rules"],
    ["contract"],
    ["runtime"],
    ["copying", "refusals", "size_sums"],
    ["ragged"],
    ["ragged_losses"],
    ["rows"],
    ["windows"],
    ["recurrent"],
    ["nonlinearities", "units", "mechanisms"],
    ["trees"],
    # Keras models to ONNX.
    ["export.onnx_io", "export.results", "export.progress"],
    ["export.passes", "export.reports"],
    ["export.tracing", "export.files"],
    ["export.lowerings"],
    ["export.signature"],
    ["export.conversion"],
    ["export.verification"],
    ["export.pipeline", "export.generation"],
    ["export"],
    # The server: inference knows no protocol, transport no model.
    ["serving.errors", "serving.limits", "serving.model"],
    ["serving.auth", "serving.status", "serving.repository"],
    ["serving.inference"],
    ["serving.protocol", "serving.telemetry"],
    ["serving.transport", "serving.client"],
    ["serving.origins"],
    ["serving.rest", "serving.grpc"],
    ["serving.process"],
    ["serving"],
    ["cli"],
]
# What stands below a room and yet is not for it, and the reason.
CLOSED = {
    "units": {"mechanisms": "a unit knows no mechanism"},
    "mechanisms": {"units": "a mechanism lifts any layer, and knows no concrete one"},
    "serving": dict.fromkeys(
        ("export", "units", "mechanisms", "nonlinearities", "ragged", "recurrent"),
        "the server runs without TensorFlow",
    )
    | dict.fromkeys(("trees", "windows", "rows"), "the server runs without TensorFlow"),
    "serving.client": dict.fromkeys(
        ("runtime", "serving.inference", "serving.telemetry", "serving.repository"),
        "a client needs neither onnxruntime nor the server",
    ),
    "serving.transport": {"serving.model": "transport carries bytes", "serving.inference": "too"},
    "trees": {"units": "trees are plain data"},
}
# The only parts of the recursion that the exporter builds on.
DOOR = {
    f"keras_blocks.mechanisms.trees.{name}"
    for name in ("kernels", "schedule", "levels", "messages", "features", "passes.base")
} | {"keras_blocks.mechanisms.trees.cells.base"}
# Packages of others, by the rooms that may import them.
STANDARD = set(sys.stdlib_module_names)
LAYERS = {"keras", "numpy", "tensorflow"}
OTHERS = {
    "errors": set(),
    "lazy": set(),
    "contract.spec": set(),
    "contract.tree_rules": set(),
    "contract": {"numpy"},
    "runtime": {"numpy", "onnxruntime"},
    **dict.fromkeys(
        ("copying", "refusals", "size_sums", "ragged", "ragged_losses", "rows"), LAYERS
    ),
    **dict.fromkeys(("recurrent", "windows", "nonlinearities"), LAYERS),
    **dict.fromkeys(("units", "mechanisms"), LAYERS),
    "trees": LAYERS | {"nltk"},
    "export": LAYERS | {"onnx", "onnxruntime", "rich", "tf2onnx"},
    "serving": {"google", "hpack", "httptools", "numpy", "opentelemetry", "orjson"},
    "cli": {"click", "keras", "numpy", "rich"},
}


def imports(tree, path="x"):
    """Every imported module of a file, wherever the import stands; those for checkers left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import it by its full name"
            for alias in node.names:  # `from keras_blocks import trees` imports keras_blocks.trees
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        else:
            yield from imports(node, path)


def imports_of(module):
    path = MODULES[module]
    return set(imports(ast.parse(path.read_text(encoding="utf-8")), path))


def within(module, room):
    full = f"keras_blocks.{room}"
    return module == full or module.startswith(f"{full}.")


def place(module):
    """The room of a module and its line: the longest name that fits."""
    rooms = [(room, line) for line, rooms in enumerate(ROOMS) for room in rooms]
    fitting = [(room, line) for room, line in rooms if within(module, room)]
    assert fitting, f"{module} stands in no room; give it a line in ROOMS"
    return max(fitting, key=lambda found: len(found[0]))


def reason_against(module, imported):
    """Why a module of ours may not import another, or None."""
    (room, line), (other, below) = place(module), place(imported)
    if room != other and below >= line:
        return f"{other} does not stand below {room}"
    for owner, closed in CLOSED.items():
        if within(module, owner):
            for shut, reason in closed.items():
                if within(imported, shut):
                    return reason
    if within(module, "export") and within(imported, "mechanisms.trees") and imported not in DOOR:
        return "it is no part of the door to the recursion"
    return None


def forbidden(module, imported):
    if module == "keras_blocks" or imported == "keras_blocks":
        return None
    if imported.startswith("keras_blocks."):
        return reason_against(module, imported)
    package = imported.partition(".")[0]
    owner = max((room for room in OTHERS if within(module, room)), key=len)
    allowed = package in STANDARD or package in OTHERS[owner]
    return None if allowed else f"{owner} takes only {sorted(OTHERS[owner])}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_file_imports_only_what_its_room_may(module):
    found = {name: forbidden(module, name) for name in imports_of(module)}
    assert {name: reason for name, reason in found.items() if reason} == {}


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("keras_blocks.contract.values", "keras_blocks.runtime.session"),
        ("keras_blocks.contract.spec", "numpy"),
        ("keras_blocks.units.gru", "keras_blocks.mechanisms.stacked"),
        ("keras_blocks.mechanisms.stacked", "keras_blocks.units.gru"),
        ("keras_blocks.export.passes.gelu", "keras_blocks.export.files.float16"),
        ("keras_blocks.export.pipeline", "keras_blocks.serving.model"),
        ("keras_blocks.serving.inference.batcher", "keras_blocks.serving.protocol.names"),
        ("keras_blocks.serving.rest.codec", "keras_blocks.serving.grpc.codec"),
        ("keras_blocks.serving.client.client", "keras_blocks.runtime.session"),
        ("keras_blocks.serving.model", "tensorflow"),
        ("keras_blocks.export.lowerings.trees.upward", "keras_blocks.mechanisms.trees.checks"),
    ],
)
def test_what_leads_upwards_or_through_a_wall_is_refused(module, imported):
    assert forbidden(module, imported)


def test_the_walk_sees_imports_inside_functions_and_leaves_out_those_for_checkers():
    source = (
        "if TYPE_CHECKING:\n    import a\n"
        "def f():\n    try:\n        import b.c\n    except E:\n        from d import e\n"
        "from keras_blocks import trees\n"
    )
    assert list(imports(ast.parse(source))) == ["b.c", "d", "keras_blocks.trees"]


def test_files_import_one_another_in_no_circle():
    graph = {}
    for module, path in MODULES.items():
        top = ast.parse(path.read_text(encoding="utf-8")).body
        top = [node for node in top if isinstance(node, ast.Import | ast.ImportFrom)]
        graph[module] = set(imports(ast.Module(top, []))) & set(MODULES) - {module}
    while ends := {module for module, below in graph.items() if not below & set(graph)}:
        graph = {module: below for module, below in graph.items() if module not in ends}
    assert graph == {}


def test_no_folder_holds_more_files_than_one_sees_at_a_glance():
    counts = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert {str(folder): count for folder, count in counts.items() if count > 14} == {}


def test_tf2onnx_is_known_in_few_places():
    users = {
        module for module in MODULES if any(i.startswith("tf2onnx") for i in imports_of(module))
    }
    outside = {module for module in users if not within(module, "export.lowerings")}
    # keras_blocks.export only looks whether it is installed.
    conversion = "keras_blocks.export.conversion"
    assert outside <= {
        "keras_blocks.export",
        f"{conversion}.tf2onnx_driver",
        f"{conversion}.branch_shapes",
    }
