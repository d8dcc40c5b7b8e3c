"""Table 1 of arXiv 2505.21179 for a model of the catalog: CLIP Score, FID, PFID, ImageReward, without and with NAG.

    pip install -c constraints.txt -e '.[paper]'
    python -m benchmarks.paper_table --model flux-schnell --prompt-file captions_val2017.json --reference val2017

The images stay in a folder; a run that was broken off goes on there, and its metrics are read anew. Several processes
share the work by --shard 0/4, 1/4, …; the table is then the same command without it.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from time import perf_counter

from app.catalog import Catalog, CatalogError
from app.loading.errors import LoadError
from app.settings import Settings
from app.worker.engine.pipelines import resolve_device
from benchmarks import report
from benchmarks.paper_table import prompts, table
from benchmarks.paper_table.draw import Limits, draw
from benchmarks.paper_table.image_cache import ImageCache, StaleImageError
from benchmarks.paper_table.measure import Reference, complete, measure
from benchmarks.paper_table.metrics import networks
from benchmarks.paper_table.plan import Plan, PlanError

ASKED = ("num_inference_steps", "guidance_scale", "width", "height")
GUIDANCE = ("scale", "tau", "alpha", "end")


class Usage(ValueError):
    """Arguments that do not fit together."""


def main(arguments: list[str] | None = None) -> None:
    began_s = perf_counter()
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        _run(asked, began_s)
    except (
        Usage, prompts.PromptFileError, PlanError, StaleImageError, CatalogError, LoadError, ModuleNotFoundError,
    ) as error:  # fmt: skip
        parser.error(str(error))


def _run(asked: argparse.Namespace, began_s: float) -> None:
    metrics = frozenset[networks.Metric](asked.metrics)
    plan = _plan(asked)
    reference = _reference(asked, plan, metrics)
    device = resolve_device(asked.device)
    shard, shards = asked.shard or (0, 1)
    # Before an hour of drawing, not after it.
    judges = None if asked.shard else _judges(asked, metrics)
    cache = ImageCache(asked.folder or Path("out/paper_table") / plan.entry.id, plan.entry)
    draw(plan, cache, device, Limits(shard, shards, None if asked.time_limit is None else began_s + asked.time_limit))
    if judges is None:
        print(f"shard {shard}/{shards}: drawn into {cache.folder}; the same command without --shard makes the table")
        return
    gc.collect()  # the pipeline makes room for the networks that judge
    places = complete(plan, cache)
    if len(places) < 2:
        raise Usage(
            f"{len(places)} prompts are drawn, and a table needs two; run the same command again to draw the rest"
        )
    judges.to(device)
    scores = measure(plan, cache, places, judges, metrics, reference, device)
    run = table.Run(plan, places, scores, judges, metrics, reference, report.machine(device.type))
    table.write(run, asked.results)


def _judges(asked: argparse.Namespace, metrics: frozenset[networks.Metric]) -> networks.Networks:
    try:
        return networks.load(metrics, asked.metric_weights, asked.clip)
    except OSError as error:
        raise Usage(f"--metric-weights: {error}") from error


def _plan(asked: argparse.Namespace) -> Plan:
    known = Catalog.known(Settings())
    if asked.model not in known:
        raise Usage(f"--model: {asked.model!r} is none of {', '.join(known)}")
    return Plan(
        known[asked.model],
        prompts.read(asked.prompt_file, asked.negative)[: asked.prompts],
        asked.batch,
        asked.seed,
        {name: getattr(asked, name) for name in ASKED if getattr(asked, name) is not None},
        {name: getattr(asked, name) for name in GUIDANCE if getattr(asked, name) is not None},
    )


def _reference(asked: argparse.Namespace, plan: Plan, metrics: frozenset[networks.Metric]) -> Reference | None:
    distances = metrics & {"fid", "pfid"}
    if asked.reference is None:
        if distances:
            raise Usage("--reference: FID and PFID need a folder of real images; or --metrics clip imagereward")
        return None
    if not distances:
        raise Usage("--reference: no metric that is asked for looks at it")
    first = plan.generation("none", 0)
    if "pfid" in metrics and asked.patch > min(first.width, first.height):
        raise Usage(f"--patch: {asked.patch} px do not fit into {first.width}x{first.height}")
    try:
        return Reference.of(asked.reference, asked.patch)
    except ValueError as error:
        raise Usage(f"--reference: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", required=True, help="an id of the catalog, NAG_CATALOG's included")
    add("--prompt-file", type=Path, required=True, help=".txt, .csv, .jsonl, or .json (a list, or COCO's captions)")
    add("--prompts", type=_positive, metavar="N", help="the first N of the file")
    add("--negative", default=prompts.NEGATIVE, help="for prompts that bring none (%(default)s)")
    add("--reference", type=Path, metavar="FOLDER", help="real images, for FID and PFID")
    add("--metrics", nargs="+", choices=networks.METRICS, default=networks.METRICS)
    add("--patch", type=_positive, default=299, metavar="PX", help="side of PFID's patch (%(default)s)")
    add("--clip", default=networks.CLIP, help="the network of the CLIP Score (%(default)s)")
    add("--metric-weights", choices=("pretrained", "random"), default="pretrained", help="random: a dry run")
    for name in ASKED:
        whole = name != "guidance_scale"
        add(f"--{name.replace('_', '-')}", type=int if whole else float, help="absent: the catalog's")
    for name in GUIDANCE:
        add(f"--{name}", type=float, help="number of NAG; default: the catalog's")
    add("--seed", type=int, default=0, help="seed of the first prompt; the next prompt has the next seed")
    add("--batch", type=_positive, default=4, metavar="ROWS", help="images per pipeline call (%(default)s)")
    add("--folder", type=Path, help="folder of the images (out/paper_table/<model>)")
    add("--results", type=Path, default=report.RESULTS, metavar="FOLDER", help="folder of the table (%(default)s)")
    add("--time-limit", type=float, metavar="S", help="begin no batch that would end later, then measure what there is")
    add("--shard", type=_shard, metavar="I/N", help="draw every N-th batch from number I, and make no table")
    add("--device", default="auto")
    return parser


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N − 1, not {text}")
    return int(number), int(count)


if __name__ == "__main__":
    main()
