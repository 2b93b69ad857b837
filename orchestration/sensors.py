"""Two sensors: one keeps a run alive where events wait, one starts replays nobody is sending."""

# No postponed annotations here: Dagster reads the classes in them.

from collections.abc import Sequence

import dagster as dg

from assets.landing import Lane
from assets.stores import Stores
from orchestration import lanes
from orchestration.keys import LAND, LANE_TAG
from orchestration.lanes import LiveRun
from penstock.clock import machine_clock
from penstock.envelope import Micros
from penstock.errors import Rejected, Stopped, Unavailable
from penstock.metadata.records import ReplayRecord
from penstock.metadata.states import wants_a_run
from replay.continuous import wants_what_landed
from replay.job import REPLAY, REPLAY_TAG

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

# The daemon looks at sensors every five seconds; asking for less changes nothing.
TICK_SECONDS = 5


@dg.sensor(
    job_name=LAND,
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Keeps one landing run alive while events wait on the log.",
)
def landing(
    context: dg.SensorEvaluationContext, stores: dg.ResourceParam[Stores]
) -> dg.SensorResult:
    """Launch a run where events wait and none drains them; fail those whose process died."""
    number = stores.settings.lanes
    decisions = [
        decide(context, stores, str(lane), waits) for lane, waits in enumerate(waiting(stores))
    ]
    requests = [request_of_lane(str(lane)) for lane in range(number) if decisions[lane].launch]
    reasons = dict.fromkeys(decision.reason for decision in decisions)
    return dg.SensorResult(requests, skip_reason=None if requests else "; ".join(reasons))


def decide(
    context: dg.SensorEvaluationContext, stores: Stores, lane: str, waits: int
) -> lanes.Decision:
    """Decide about one lane, and fail its runs whose process died."""
    # One lane has every run, also those that somebody started by hand.
    tags = {LANE_TAG: lane} if stores.settings.lanes > 1 else None
    runs = live_runs(context.instance, LAND, tags)
    try:
        lease = stores.store.lease(lane_lease(lane))
    except Unavailable as error:
        context.log.warning("landing goes on without its lease: %s", error)
        return lanes.decide_without_lease(waiting=waits, runs=runs)
    decision = lanes.decide(
        waiting=waits,
        runs=runs,
        lease_holder=lease.holder if lease else None,
        lease_until=lease.until if lease else 0,
        now=machine_clock(),
    )
    fail_runs(context.instance, decision.dead)
    return decision


def request_of_lane(lane: str) -> dg.RunRequest:
    """Ask for a run that drains a lane."""
    return dg.RunRequest(
        run_config={"ops": {"drain": {"config": {"lane": lane}}}}, tags={LANE_TAG: lane}
    )


@dg.sensor(
    job_name=REPLAY,
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts replays that were asked for, and resumes those whose process died.",
)
def replays(
    context: dg.SensorEvaluationContext, stores: dg.ResourceParam[Stores]
) -> dg.SensorResult:
    """Launch a run for each replay that wants one; fail those whose process died."""
    now = machine_clock()
    wanting = [r for r in stores.store.open_replays() if wants_a_run(r, now)]
    requests = []
    for replay in wanting:
        runs = live_runs(context.instance, REPLAY, {REPLAY_TAG: replay.id})
        decision = lanes.decide(
            waiting=1,
            runs=runs,
            lease_holder=replay.run_id if replay.lease_until else None,
            lease_until=replay.lease_until or 0,
            now=now,
        )
        fail_runs(context.instance, decision.dead)
        if decision.launch and launchable(replay, now) and has_work(context, replay, stores):
            requests.append(request_of(replay))
    return dg.SensorResult(
        requests, skip_reason=None if requests else "no replay waits to be started"
    )


def launchable(replay: ReplayRecord, now: Micros) -> bool:
    """Leave a fresh request to the API that is about to launch it, unless it was to start later."""
    return replay.start_at is not None or now - replay.created_at >= 2 * TICK_SECONDS * lanes.SECOND


def has_work(context: dg.SensorEvaluationContext, replay: ReplayRecord, stores: Stores) -> bool:
    """Leave a continuous replay that rests alone until something has landed.

    Where its table or its log is not what it was, its run is the one to say so.
    """
    try:
        return wants_what_landed(replay, stores.lake, stores.buffer)
    except (Rejected, Stopped):
        return True
    except Unavailable as error:
        context.log.warning("replay %s rests until that is back: %s", replay.id, error)
        return False


def request_of(replay: ReplayRecord) -> dg.RunRequest:
    """Ask for a run of a replay; the run config carries its id and nothing else."""
    return dg.RunRequest(
        run_config={"ops": {"send": {"config": {"replay_id": replay.id}}}},
        tags={REPLAY_TAG: replay.id},
    )


def lane_lease(lane: str) -> str:
    """Name the lease of a lane."""
    return f"lane {lane}"


def waiting(stores: Stores) -> list[int]:
    """Count for each lane the events on the log that no commit has absorbed."""
    buffer, number = stores.buffer, stores.settings.lanes
    counts = [0] * number
    ends = buffer.ends(buffer.collections())
    released = buffer.released(list(ends))
    for collection, all_ends in ends.items():
        for lane in range(number):
            mine = Lane(lane, number).share(collection, all_ends)
            counts[lane] += lanes.waiting(mine, released[collection])
    return counts


def live_runs(
    instance: dg.DagsterInstance, job: str, tags: dict[str, str] | None = None
) -> list[LiveRun]:
    """Answer the job's runs that Dagster believes to be starting or running."""
    records = instance.get_run_records(
        dg.RunsFilter(job_name=job, statuses=UNFINISHED, tags=tags or {})
    )
    return [
        LiveRun(record.dagster_run.run_id, int(record.create_timestamp.timestamp() * 1e6))
        for record in records
    ]


def fail_runs(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> None:
    """Record that these runs died."""
    for run_id in run_ids:
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, "its process died: the lease was not renewed")
