"""`stillhouse run`, `init`, `schema`, `predict` and `export`, through `main` as a user would."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import stillhouse
from stillhouse.cli import main
from stillhouse.errors import DataError, ExportError, RunFolderError
from stillhouse.plugins.manager import default_manager

TINY = [
    *("--set", "dataset.rows=160", "--set", "dataset.unlabelled=0", "--set", "train.teacher.epochs=1"),
    *("--set", "train.student.epochs=1", "--set", "evaluate.latency_samples=20"),
]
TURBOFAN = [
    *("--set", "teacher={use: industrial/gradient-boosting, max_iter: 5}", "--set", "train.student.epochs=1"),
    *("--set", "evaluate.latency_samples=20"),
]


@pytest.fixture(scope="module")
def turbofan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "turbofan"
    assert main(["run", "industrial/rul-demo", "--out", str(folder), "--seeds", "0,1", "--quiet", *TURBOFAN]) == 0
    return folder


def test_run_prints_the_three_models_the_verdict_and_the_report(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "run"
    assert main(["run", "core/quickstart", "--out", str(folder), "--seeds", "0,1", *TINY]) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    for role in ("teacher", "baseline", "student"):
        assert any(line.startswith(role) for line in lines)
    assert f"report: {folder / 'report.html'}" in lines
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["verdict"]["sentence"] in output.out
    assert "student, seed 1" in output.err
    assert "\x1b" not in output.err, "plain lines when not a terminal"


def test_run_prints_what_the_method_measured_of_its_own(tmp_path: Path, capsys: Any) -> None:
    small = [*TINY[:2], "--set", "method.rounds=2", "--set", "dataset.unlabelled=60", "--set", "train.student.epochs=1"]
    command = ["run", "core/federated-demo", "--out", str(tmp_path / "run"), "--seeds", "0,1", "--quiet"]
    assert main([*command, *small]) == 0
    told = capsys.readouterr().out
    table = json.loads((tmp_path / "run" / "summary.json").read_text())["method_facts"]["table"]
    pooled = next(row["mean"] for row in table if (row["name"], row["model"]) == ("test_accuracy", "pooled"))
    flat = " ".join(told.split())
    assert "test accuracy: alone " in flat
    assert f"pooled {pooled:.3f} ±" in flat
    assert "core/federated: clients 5; public rows 60; rounds 2; " in flat
    assert re.search(r"bytes up [\d.]+ kB", flat)


def test_run_as_json_keeps_stdout_clean_and_quiet_says_nothing_else(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "run"
    assert main(["run", "core/quickstart", "--out", str(folder), "--seeds", "0", "--json", "--quiet", *TINY]) == 0
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert document["schema"] == 1
    assert document["summary"]["verdict"]["helped"] is None
    assert output.err == ""


def test_stop_after_names_the_folder(tmp_path: Path, capsys: Any) -> None:
    assert main(["run", "core/quickstart", "--out", str(tmp_path / "run"), "--stop-after", "data", *TINY]) == 0
    assert "stopped after data" in capsys.readouterr().out
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "core/quikstart"], "core/quickstart"),
        (["run", "core/quickstart", "--seeds", "a"], "--seeds 0,1,2"),
        (["run", "core/quickstart", "--set", "student.hiden=3"], "hidden"),
        (["run", "absent.yaml"], "there is no file 'absent.yaml'"),
        (["predict", "nowhere", "file.csv"], "not a run folder"),
        (["export", "nowhere"], "not a run folder"),
        (["init", "core/quikstart"], "core/quickstart"),
    ],
)
def test_mistakes_give_one_clear_error_and_exit_status_two(arguments: list[str], said: str, capsys: Any) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert said in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


def test_init_writes_a_copy_that_runs_and_never_overwrites(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "core/quickstart"]) == 0
    copied = yaml.safe_load((tmp_path / "quickstart.yaml").read_text())
    assert copied == yaml.safe_load(default_manager().registry.get("recipe", "core/quickstart").load())
    assert main(["init", "core/quickstart"]) == 2
    assert main(["run", "quickstart.yaml", "--seeds", "0", "--quiet", *TINY]) == 0
    assert (tmp_path / "runs" / "quickstart" / "report.html").is_file()


@pytest.mark.plugins
def test_schema_lists_the_options_of_installed_components(capsys: Any) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "industrial/rul" in json.dumps(schema["$defs"]["head-ref"])
    assert "filters" in json.dumps(schema["$defs"]["student-ref"])


def engines(path: Path, units: int = 3, columns: int | None = None) -> Path:
    info = json.loads((path / "data" / "reader.json").read_text())
    sensors = info["sensors"]
    lines = [",".join(["unit", "cycle", *sensors[:columns]])]
    generator = np.random.default_rng(0)
    for unit in range(1, units + 1):
        for time in range(1, 40 + unit):
            values = generator.normal(size=len(sensors[:columns]))
            lines.append(",".join([str(unit), str(time), *(f"{value:.4f}" for value in values)]))
    file = path.parent / f"engines-{columns}.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.plugins
def test_predict_writes_a_row_per_unit_as_the_model_says(turbofan: Path, capsys: Any) -> None:
    file = engines(turbofan)
    assert main(["predict", str(turbofan), str(file), "--seed", "1"]) == 0
    printed = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    out = turbofan.parent / "rul.csv"
    assert main(["predict", str(turbofan), str(file), "--seed", "1", "--out", str(out)]) == 0
    assert list(csv.DictReader(out.open())) == printed
    assert len(printed) == 3
    columns = stillhouse.predict(turbofan, file, seed=1)
    assert [float(row["rul"]) for row in printed] == pytest.approx(columns["rul"])
    assert all(value >= 0 for value in columns["rul"])


@pytest.mark.plugins
def test_predict_refuses_what_it_cannot_read(turbofan: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        stillhouse.predict(turbofan, "absent.csv")
    with pytest.raises(DataError):
        stillhouse.predict(turbofan, engines(turbofan, columns=2))
    with pytest.raises(RunFolderError, match="no student of seed 9") as caught:
        stillhouse.predict(turbofan, engines(turbofan), seed=9)
    assert "0, 1" in caught.value.fix


@pytest.mark.plugins
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_an_exported_student_says_what_the_trained_one_says(format: str, turbofan: Path, capsys: Any) -> None:
    assert main(["export", str(turbofan), "--format", format, "--seed", "0"]) == 0
    suffix = {"onnx": "onnx", "torch": "pt2"}[format]
    path = turbofan / "export" / f"student.{suffix}"
    described = json.loads(path.with_name(path.name + ".json").read_text())
    (spec,) = described["inputs"].values()
    _, window, sensors = spec["shape"]
    signal = torch.randn(5, window, sensors)
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (answer,) = session.run(None, {"signal": signal.numpy()})
    else:
        answer = torch.export.load(str(path)).module()(signal).detach().numpy()
    from stillhouse.deploy.predicting import open_model, open_run

    _, info, _, registry = open_run(turbofan)
    trained, _ = open_model(turbofan, model="student", seed=0, info=info, registry=registry)
    with torch.no_grad():
        expected = trained.model(signal=signal).numpy()
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-3)
    assert answer.shape == (5, 1)


@pytest.mark.plugins
def test_export_refuses_unknown_formats_and_estimators(turbofan: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="'tflite' is unknown"):
        stillhouse.export(turbofan, format="tflite")
    values = yaml.safe_load(default_manager().registry.get("recipe", "core/quickstart").load())
    values |= {"student": "core/decision-tree", "seeds": [0], "name": "tree", "objectives": {"soft": ["soft"]}}
    values["dataset"] = {"use": "core/synthetic", "rows": 160}
    values["train"] = {"teacher": {"epochs": 1}}
    stillhouse.run(values, out=tmp_path / "tree", stop_after="student")
    assert (
        not load_file(tmp_path / "tree" / "student" / "seed-0" / "predictions" / "test.safetensors")["prediction"]
        .isnan()
        .any()
    )
    (tmp_path / "tree" / "summary.json").write_text(
        '{"primary_metric": {"name": "accuracy", "higher_is_better": true}}'
    )
    with pytest.raises(ExportError, match="is an estimator"):
        stillhouse.export(tmp_path / "tree")


@pytest.mark.plugins
def test_the_best_seed_is_chosen_on_validation(turbofan: Path) -> None:
    from stillhouse.deploy.predicting import open_model, open_run

    _, info, _, registry = open_run(turbofan)
    _, path = open_model(turbofan, model="student", seed=None, info=info, registry=registry)
    best = {}
    for seed in (0, 1):
        lines = (turbofan / "student" / f"seed-{seed}" / "history.jsonl").read_text().splitlines()
        best[f"seed-{seed}"] = min(json.loads(line)["val"]["rmse"] for line in lines)
    assert path.name == min(best, key=lambda name: best[name])
