"""What the service answers: the models that its OpenAPI document and its clients share."""

# Without the import from __future__: pydantic reads these annotations at run time, and Python 3.9
# knows no `X | None`, which ruff then refuses.

from typing import Any, Optional

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)  # newer services may say more


class Predicted(_Answer):
    """What the policy expects of an arm; null where it doesn't know."""

    quality: Optional[float] = None
    latency_ms: Optional[float] = None
    cost_usd: Optional[float] = None


class Alternative(_Answer):
    """An eligible arm that was not chosen."""

    arm: str
    provider: str
    model: str
    propensity: float
    predicted: Predicted
    plan: Optional[str]
    """Where the alternative is a plan, its id; `arm` is then the first that it calls."""


class Step(_Answer):
    """One call of a plan. `begin` is one of {"at_ms": 0}, {"after_ms": 850} (after the step before
    began, which is still out then), {"on_error": true} and {"quality_below": 0.7} (of the answer
    before, as you judge it)."""

    arm: str
    provider: str
    model: str
    endpoint: Optional[str]
    begin: dict[str, Any]


class Plan(_Answer):
    """What to do with several arms: a fallback, hedge, race or cascade."""

    id: str
    kind: str
    deadline_ms: Optional[float]
    steps: tuple[Step, ...]


class Excluded(_Answer):
    """An arm that can't be called now, and why."""

    arm: str
    reason: str


class Decision(_Answer):
    """The chosen arm, the probability it was drawn with, and all others that were eligible.

    `notes` say what of the request had no effect, such as an arm to allow that isn't there.
    `gave_way` names limits that no arm kept, of those that may give way (`relax`): quality,
    latency, cost or context. The arm is then a fallback.
    Where nothing could be `logged`, `token` carries the decision: give it with the report.
    `excluded` can't be called now, whatever was asked for. `degraded` is `all_out` where no arm
    can be, and this one comes back soonest. `turn` counts the turns of a `session`, and `draw_id`
    is the decision that has drawn its arm.
    """

    decision_id: str
    policy: str
    version: str
    snapshot: int
    arm: str
    provider: str
    model: str
    endpoint: Optional[str]
    propensity: float
    confidence: Optional[float]
    predicted: Predicted
    alternatives: tuple[Alternative, ...]
    logged: bool
    notes: tuple[str, ...]
    gave_way: tuple[str, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    degraded: Optional[str] = None
    plan: Optional[Plan]
    session: Optional[str] = None
    turn: Optional[int] = None
    draw_id: Optional[str] = None
    token: Optional[str] = None


class Totals(_Answer):
    """What the decisions of a batch come to, as predicted; `saving` is the share of the baseline's
    cost that is saved."""

    predicted_cost_usd: float
    baseline_cost_usd: Optional[float]
    saving: Optional[float]
    predicted_wall_ms: Optional[float]
    """When all are called at once; null where it isn't known."""


class Receipt(_Answer):
    """What a reward has changed, in the names quality, latency_ms, cost_usd and error; `notes` say
    why one stays missing that was to be computed."""

    decision_id: str
    accepted: tuple[str, ...]
    unchanged: tuple[str, ...]
    missing: tuple[str, ...]
    late: bool
    notes: tuple[str, ...]


class Correction(_Answer):
    """`corrected` holds now as given, in the names quality, latency_ms and cost_usd; what is
    `unchanged` held already."""

    decision_id: str
    corrected: tuple[str, ...]
    unchanged: tuple[str, ...]


class Logged(_Answer):
    """A decision that was made elsewhere is logged, now or by an earlier delivery."""

    decision_id: str
    logged: bool


class VersionState(_Answer):
    """One version, as needed to decide with it. Bytes are in base64; `encoder_bytes` are null where
    the caller has that encoder, and `values` before the first snapshot."""

    version: str
    snapshot: int
    config: dict[str, Any]
    encoder: str
    encoder_bytes: Optional[str]
    values: Optional[str]


class PolicyState(_Answer):
    """All that a policy decides with. `state` names its versions, snapshots and arms: it changes
    with any part; `tag` does as well when another arm is `out` (with the reason), or an arm
    `answered` another share of its calls. The challenger has `share` of the draw."""

    policy: str
    state: str
    catalog: str
    arms: list[dict[str, Any]]
    champion: VersionState
    challenger: Optional[VersionState]
    share: float
    tag: str
    out: dict[str, str]
    answered: dict[str, float]
