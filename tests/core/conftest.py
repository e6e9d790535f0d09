"""What the planner's properties and its stories share: a time, and what becomes of a world by a plan."""

from dataclasses import replace
from datetime import UTC, datetime

from skylift.core.lifecycle import DeploymentStatus
from skylift.core.world import EndPhase, Finish, OpenPhase, Pause, PhaseState, Plan, Start, Stop, World

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def carry_out(world: World, decided: Plan, now: datetime) -> World:
    """The effect of a plan on a world, as the store's apply has it."""
    phases = list(world.phases)
    status = world.status
    for action in decided.actions:
        match action:
            case Start():
                status = DeploymentStatus.RUNNING
            case OpenPhase(number):
                phases[number] = replace(phases[number], state=PhaseState.OPEN, opened_at=now)
            case EndPhase(number):
                phases[number] = replace(phases[number], state=PhaseState.THROUGH, finished_at=now)
            case Pause():
                status = DeploymentStatus.PAUSED
            case Stop():
                status = DeploymentStatus.FAILED
            case Finish():
                status = DeploymentStatus.COMPLETE
    bump = 1 if decided.actions else 0
    return replace(world, phases=tuple(phases), status=status, generation=world.generation + bump)
