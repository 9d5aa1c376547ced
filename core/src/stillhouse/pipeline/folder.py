"""The run folder before a run: claimed, checked against the recipe it was made with, and freed of what is stale."""

from __future__ import annotations

import shutil
from pathlib import Path

from stillhouse.errors import RunFolderError
from stillhouse.pipeline.stages import RECORD, SIZES, differences
from stillhouse.recipe.model import SizesConfig
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.recipe.text import parse_value, read_saved, to_yaml
from stillhouse.storage import SUMMARY, refuse_search

ELSEWHERE = "choose another folder with --out, or have `stillhouse run --overwrite` make it again"
"""What to do where a finished run would be changed."""


def claim(folder: Path, resolved: ResolvedRecipe, *, overwrite: bool) -> None:
    """Make the folder, or make sure that it is a run of the same name, and that nothing finished in it is lost."""
    refuse_search(folder, "choose another folder with --out; its final run is {final}")
    existing = folder / "recipe.yaml"
    if existing.exists():
        name = read_saved(existing).get("name")
        if name != resolved.recipe.name:
            raise RunFolderError(
                f"'{folder}' holds a run of '{name}', not of '{resolved.recipe.name}'",
                where=str(folder),
                fix="choose another folder with --out",
            )
        changed = _changed(folder, resolved)
        if changed and not overwrite and (folder / SUMMARY).exists():
            seeds = ",".join(map(str, read_saved(existing).get("seeds", [])))
            fewer = f"give --seeds {seeds}, as it has; or " if all(e.startswith("seeds") for e in changed) else ""
            raise RunFolderError(
                f"'{folder}' holds a finished run of another recipe ({', '.join(changed[:3])}"
                f"{f' and {len(changed) - 3} more' if len(changed) > 3 else ''})",
                where=str(folder),
                fix=f"{fewer}{ELSEWHERE}",
            )
    elif (
        folder.exists()
        and not existing.exists()
        and (not folder.is_dir() or any(not each.name.startswith(("run.", ".")) for each in folder.iterdir()))
    ):
        raise RunFolderError(
            f"'{folder}' exists and is not a run",
            where=str(folder),
            fix="choose a new or empty folder with --out",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"cannot make the run folder: {error}",
            where=str(folder),
            fix="choose a folder that you may write to with --out",
        ) from error


def _changed(folder: Path, resolved: ResolvedRecipe) -> list[str]:
    """What differs from the recipe that the folder was made with; seeds and sizes that are added do not count."""
    saved = folder / "recipe.yaml"
    before, now = read_saved(saved), parse_value(resolved_yaml(resolved), source="recipe")
    if set(before.get("seeds", [])) <= set(now["seeds"]):
        before["seeds"] = now["seeds"]
    before.get("teacher", {}).setdefault("cache_precision", "float32")  # folders of earlier versions do not have it
    sizes = resolved.recipe.sizes
    if not before.get("sizes") or (sizes and sizes.including(SizesConfig.model_validate(before["sizes"]))):
        before["sizes"] = now["sizes"]
    beside = {"summary": "", "search": {}}  # no result depends on these
    return differences({**before, **beside}, {**now, **beside})


def remove_stale(folder: Path, resolved: ResolvedRecipe) -> None:
    """Remove what was made with another recipe: exports, results, and models of seeds and sizes no longer asked for."""
    if not (folder / "recipe.yaml").exists() or not _changed(folder, resolved):
        return
    remove_results(folder)
    for path in folder.glob("**/seed-*"):
        if path.is_dir() and path.name.removeprefix("seed-") not in {str(seed) for seed in resolved.recipe.seeds}:
            shutil.rmtree(path)
    for path in folder.glob(f"{SIZES}/*"):
        if path.name not in {size.name for size in resolved.sizes}:
            shutil.rmtree(path)


def remove_results(folder: Path) -> None:
    """Remove what rests on the models of a run: summary, report and exports."""
    for name in (SUMMARY, "report.html"):
        (folder / name).unlink(missing_ok=True)
    for stage in ("evaluate", "report"):
        (folder / stage / RECORD).unlink(missing_ok=True)
    shutil.rmtree(folder / "export", ignore_errors=True)


def resolved_yaml(resolved: ResolvedRecipe) -> str:
    """The recipe with every default filled in, options of components included; reading it again gives the same run."""
    return to_yaml(resolved.to_recipe())
