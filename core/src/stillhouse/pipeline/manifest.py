"""``manifest.json``: what a run was made of, for those who want to make it again."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from stillhouse.pipeline.context import RunContext
from stillhouse.storage import write_json
from stillhouse.training.threads import share

PACKAGES = (
    "stillhouse",
    "torch",
    "numpy",
    "scikit-learn",
    "accelerate",
    "safetensors",
    "skops",
    "transformers",
    "torchvision",
    "torchaudio",
    "pandas",
)


def write_manifest(context: RunContext) -> None:
    """Write the manifest; it never holds a host name or a user name."""
    components = {}
    for role, component in context.resolved.components().items():
        entry = {
            "id": component.id,
            "distribution": component.plugin.distribution,
            "version": component.plugin.version,
        }
        if component.plugin.sha256:
            entry["sha256"] = component.plugin.sha256
        components[role] = entry
    manifest: dict[str, Any] = {
        "schema": 1,
        "command": ["stillhouse", *sys.argv[1:]]
        if os.path.basename(sys.argv[0]) == "stillhouse"
        else ["stillhouse.run"],
        # Where the recipe's paths begin, from the run folder: its recipe.yaml can be run again.
        "base": os.path.relpath(context.resolved.base, context.folder.resolve()),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "stillhouse": version("stillhouse"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": _threads(context),
        "processes": context.processes,
        "device": context.device.type,
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "components": components,
        "seeds": {
            "data": context.resolved.recipe.data_seed,
            "teacher": context.resolved.recipe.teacher.seed,
            "students": context.resolved.recipe.seeds,
        },
        "guards": [{"name": name, "passed": True, "detail": detail} for name, detail in context.guards.items()],
    }
    write_json(context.folder / "manifest.json", manifest)


def _threads(context: RunContext) -> dict[str, Any]:
    """CPU threads of this process, of the trainings by stage (once there are some), and of the timing."""
    used: dict[str, set[int]] = {}
    path = context.folder / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        record = json.loads(line)
        used.setdefault(record["stage"], set()).add(record["threads"])
    return {
        "process": share(),
        "training": {stage: sorted(counts) for stage, counts in used.items()},
        "timing": context.resolved.recipe.evaluate.threads,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the machine's own word for its processor is all there is
    return platform.processor() or platform.machine()
