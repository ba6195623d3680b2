"""Nothing that is read (messages, state, artifacts, plans, spools) can run: the source holds nothing that could."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Importing one of these is reason enough to look.
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "jsonpickle"}
#: So is calling one of these, by the last part of its name and whatever it is called on.
CALLS = {"eval", "exec", "load_model", "unpickle", "from_config", "model_from_json", "load_module", "unpack_archive",
         "extractall"}  # fmt: skip
#: ``compile`` is a method of many things; the builtin is what makes code of text.
BARE = {"compile", "__import__"}
#: A checkpoint comes with a package that is pinned, and is read only if it has the digest that is known.
KNOWN = {"models/checkpoint.py": ["pickle"]}


def findings(source: str) -> list[str]:
    """What is in ``source`` that could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = {alias.name for alias in node.names}
            if node.module.split(".")[0] in MODULES:
                found.append(node.module)
            found += sorted(named & (CALLS | MODULES))
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in CALLS or (isinstance(node.func, ast.Name) and name in BARE):
                found.append(name)
            if name in {"load", "loads", "fromfile", "memmap"}:
                found += [
                    "allow_pickle" for keyword in node.keywords if keyword.arg == "allow_pickle" and unsafe(keyword)
                ]
            if any(keyword.arg == "shell" and unsafe(keyword) for keyword in node.keywords):
                found.append("shell=True")
    return found


def unsafe(keyword: ast.keyword) -> bool:
    """Whether its value is anything but a literal False."""
    return not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)


@pytest.mark.parametrize("package", ["stream", "models"])
def test_no_deserialiser_that_can_run_code_is_in_the_source(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 20
    found = {str(path.relative_to(ROOT)): findings(path.read_text()) for path in files}
    assert {path: what for path, what in found.items() if what} == {
        path: what for path, what in KNOWN.items() if path.startswith(package)
    }


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "from keras.saving import load_model",
        "import numpy as np; np.load('x', allow_pickle=True)",
        "np.load('x', allow_pickle=trust)",
        "keras.models.load_model('x')",
        "import yaml",
        "eval('1')",
        "__import__('os')",
        "subprocess.run(text, shell=True)",
        "shutil.unpack_archive('a.zip')",
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert findings(source)


@pytest.mark.parametrize("source", ["np.load('x', allow_pickle=False)", "re.compile('x')", "json.loads('1')"])
def test_and_nothing_else(source: str) -> None:
    assert findings(source) == []
