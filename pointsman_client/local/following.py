"""A policy's state, fetched from the service and put together as the service does it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import orjson

from features.encoder import Encoder
from pointsman_client.answers import PolicyState, VersionState
from pointsman_client.client import Client
from pointsman_client.errors import PointsmanError
from pointsman_client.wire import Request
from policy import policy as policies
from policy.arms.availability import Availability
from policy.arms.catalog import Catalog
from policy.choosing.incumbent import START, Standing
from policy.config.schema import PolicyConfig
from policy.policy import Policy
from policy.values import models
from policy.values.protocol import ValuesView
from policy.values.snapshot import unpack


@dataclass(frozen=True, slots=True)
class Followed:
    """A running policy, the name of its state, and what to ask by whether anything is new."""

    policy: Policy
    state: str
    tag: str


class Follower:
    """Keeps one policy as the service has it; `now` is replaced whole."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._encoders: dict[str, Encoder] = {}
        self.now = self._built(self._fetch({}))

    def refresh(self) -> None:
        """Take in what is new, if anything is.

        Raises
        ------
        PointsmanError
            If the service can't be asked, or gives what can't be read here; `now` stays.
        """
        try:
            state = self._fetch({"if-none-match": f'"{self.now.tag}"'})
        except PointsmanError as error:
            if error.status == 304:  # nothing is new
                return
            raise
        self.now = self._built(state)

    def _fetch(self, headers: Mapping[str, str]) -> PolicyState:
        path = f"/policies/{quote(self._name, safe='')}/state"
        have = {"have": list(self._encoders)}
        read = PolicyState.model_validate
        return self._client._send(Request("GET", path, read, params=have, headers=headers))

    def _built(self, state: PolicyState) -> Followed:
        try:
            return Followed(self._policy(state), state.state, state.tag)
        except Exception as error:  # of another release, or without a library that it needs
            why = f"policy {self._name!r} can't be decided here: {error}"
            raise PointsmanError(None, "Unreadable state", why) from error

    def _policy(self, state: PolicyState) -> Policy:
        catalog = Catalog.from_json(orjson.dumps(state.arms))
        other = state.challenger
        policy = self._version(state.policy, state.champion, catalog)
        if other is not None:
            challenger = self._version(state.policy, other, catalog)
            policy = policy.beside(challenger, state.share)
        used = {version.encoder for version in (state.champion, other) if version is not None}
        self._encoders = {name: self._encoders[name] for name in used}
        if not (state.out or state.answered):
            return policy
        shares = [state.answered.get(arm, 1.0) for arm in catalog.ids]
        answered = np.array(shares) if state.answered else None
        return policy.given(Availability(state.out, answered=answered))

    def _version(self, name: str, state: VersionState, catalog: Catalog) -> Policy:
        if state.encoder_bytes is not None:
            self._encoders[state.encoder] = Encoder.from_bytes(b64decode(state.encoder_bytes))
        encoder = self._encoders[state.encoder]
        config = PolicyConfig.model_validate_json(orjson.dumps(state.config))
        view, standing = _decided_with(config, encoder, state.values)
        return policies.build(
            name,
            state.version,
            state.snapshot,
            config=config,
            encoder=encoder,
            catalog=catalog,
            view=view,
            standing=standing,
        )


def _decided_with(
    config: PolicyConfig, encoder: Encoder, values: str | None
) -> tuple[ValuesView | None, Standing]:
    if values is None:
        return models.prior_view(config, encoder), START
    state = unpack(b64decode(values))
    header = state.header
    if header.encoder != encoder.fingerprint:
        raise ValueError(f"the snapshot of version {header.version} has another encoder")
    view = None if config.model in models.NO_VALUES else models.read_view(header.kind, state.parts)
    return view, Standing.of(header.standing)
