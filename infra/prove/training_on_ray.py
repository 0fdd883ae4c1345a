"""Members trained on processes and on a Ray cluster of two nodes, through Prefect's task runners: the same files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feature_store.clock import monotonic
from infra.prove.markets import market
from infra.prove.proof import Proof, Size
from infra.prove.stage import Stage

# Trees, which must be equal to the byte; full adds the nets.
MEMBERS = {Size.CI: ("xgboost", "lightgbm"), Size.FULL: ("xgboost", "lightgbm", "nhits", "patchtst")}
_NODE_ID = 28  # Bytes of Ray's own ids of nodes.


@contextmanager
def _cluster() -> Iterator[str]:
    """Run two Ray nodes of one processor each on this machine, and yield their address."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
    import ray  # noqa: PLC0415 - half a second, and it reads its environment at import
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - as above

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 150 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        yield str(cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()


def prove(size: Size) -> Proof:
    """Train on two nodes, on two processes and here, and compare files, and where each member was trained."""
    with Stage("training-on-ray") as stage:
        urls = stage.up("prefect-server")
        os.environ["PREFECT_API_URL"] = f"{urls['prefect-server']}/api"
        os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
        began = monotonic()
        with _cluster() as address:
            placed = _trained(stage.home, size, trainer="ray", ray_address=address)
        took = monotonic() - began
        beside = _trained(stage.home, size, trainer="processes", train_processes=2)
        here = {name: files for name, (_, files) in _trained(stage.home, size, trainer="sequential").items()}
    trees = [name for name in here if name in ("xgboost", "lightgbm")]
    equal = sum(here[name] == there[1] for name in trees for there in (placed[name], beside[name]))
    nodes, processes = (len({where for where, _ in told.values()}) for told in (placed, beside))
    holds = set(here) == set(placed) == set(beside) and equal == 2 * len(trees) and nodes == processes == 2
    return Proof(
        name="training-on-ray",
        figure=(
            f"{len(placed)} members on {nodes} nodes of Ray ({took:.0f} s, cluster included) and on {processes} "
            f"processes; {equal} of {2 * len(trees)} trees equal to those trained here, to the byte"
        ),
        bar="2 nodes, 2 processes, all trees",
        holds=holds,
    )


def _trained(home: Path, size: Size, **chosen: object) -> dict[str, tuple[str, dict[str, bytes]]]:
    """Fit the members as flow train does, and return the node and the files of each."""
    from prefect import flow, task  # noqa: PLC0415 - Prefect reads its environment at import

    from flows.orchestration import ProgressBar  # noqa: PLC0415 - as above
    from flows.settings import FlowSettings  # noqa: PLC0415 - as above
    from flows.trainers import fit_one, fitted_beside_each_other, fitted_here, runner_of, stored  # noqa: PLC0415

    settings = FlowSettings.of(home=home, size="tiny", **chosen)
    frames, config = _frames_and_config(settings)

    @task(task_run_name="fit-{name}")
    def fit_and_tell(name: str, frames: Any, config: Any) -> bytes:
        import ray  # noqa: PLC0415 - as in _cluster

        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else f"{os.getpid():056x}"
        return bytes.fromhex(node) + fit_one.fn(name, frames, config).content

    @flow(name="train-on-two-nodes")
    def fit() -> dict[str, tuple[str, dict[str, bytes]]]:
        runner = runner_of(settings, len(MEMBERS[size]))
        if runner is None:
            bar = ProgressBar("train", "Training")
            fitted = fitted_here(MEMBERS[size], frames, config, bar)
            return {name: ("here", stored(one.content).file.files) for name, one in fitted}
        told = fitted_beside_each_other(MEMBERS[size], frames, config, runner, fit_and_tell)
        return {name: (one[:_NODE_ID].hex(), stored(one[_NODE_ID:]).file.files) for name, one in told}

    return fit()


def _frames_and_config(settings: Any) -> tuple[Any, Any]:
    """Return frames of three seeded markets with the real model inputs, and how tiny members learn from them."""
    from feature_store.candle import Series, Timeframe  # noqa: PLC0415 - as above
    from feature_store.clock import utc_now  # noqa: PLC0415 - as above
    from feature_store.lake import CandleLake  # noqa: PLC0415 - as above
    from flows.frames import frames_between  # noqa: PLC0415 - as above
    from flows.sizes import training_config  # noqa: PLC0415 - as above

    config = training_config(settings, utc_now())
    lake, series = CandleLake(settings.home / "lake"), []
    for seed, name in enumerate(("BTC", "ETH", "SOL")):
        one, block = Series("sandbox", f"{name}/USDT:USDT", Timeframe.M5), market(2400, seed=seed, flat=0.0)
        lake.append(one, block)
        series.append(one)
    start_ms = int(block.open_time_ms[0])
    end_ms = int(block.open_time_ms[-1]) + Timeframe.M5.milliseconds
    return frames_between(
        settings.home / "features", lake, series, start_ms=start_ms, end_ms=end_ms, horizon=config.horizon
    ), config
