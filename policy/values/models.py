"""Which value model a configuration means, and how its stored bytes are read again."""

from __future__ import annotations

from features.encoder import Encoder
from policy.config.schema import PolicyConfig
from policy.values.linear.model import LinearModel
from policy.values.linear.view import LinearView
from policy.values.nearest import NearestModel, NearestView
from policy.values.parts import Parts
from policy.values.protocol import ValueModel, ValuesView

VALUE_MODELS = ("linear", "nearest", "vw")
NO_VALUES = frozenset({"fixed", "rules", "uniform", "caller"})


def default_encoder(config: PolicyConfig) -> Encoder:
    """The data-free encoder that a new version starts with."""
    return Encoder.default()


def new_model(config: PolicyConfig, encoder: Encoder) -> ValueModel | None:
    """A model that has seen nothing; None where the policy learns nothing."""
    if config.model in NO_VALUES:
        return None
    if config.model == "vw":
        from policy.values.vw.model import VwModel  # noqa: PLC0415 - loaded only where a policy runs it

        return VwModel(encoder.groups, config.scales, config.cb_type)
    if config.model == "nearest":
        return NearestModel(encoder.d, config.scales, config.neighbours, config.window_events)
    return LinearModel(encoder.groups, config.scales, config.forgetting, config.notice_changes)


def prior_view(config: PolicyConfig, encoder: Encoder) -> ValuesView | None:
    """What serving decides with before the first snapshot."""
    model = new_model(config, encoder)
    return None if model is None else model.view()


def read_model(kind: str, parts: Parts) -> ValueModel:
    """A model from the parts of a checkpoint."""
    _known(kind)
    if kind == "vw":
        from policy.values.vw.model import VwModel  # noqa: PLC0415

        return VwModel.from_parts(parts)
    return NearestModel.from_parts(parts) if kind == "nearest" else LinearModel.from_parts(parts)


def read_view(kind: str, parts: Parts) -> ValuesView:
    """A view from the parts of a snapshot."""
    _known(kind)
    if kind == "vw":
        from policy.values.vw.view import VwView  # noqa: PLC0415

        return VwView.from_parts(parts)
    return NearestView.from_parts(parts) if kind == "nearest" else LinearView.from_parts(parts)


def _known(kind: str) -> None:
    if kind not in VALUE_MODELS:
        raise ValueError(f"unknown value model {kind!r}, expected one of {', '.join(VALUE_MODELS)}")
