"""What the configuration file says of a policy, as registered versions and their roles."""

from __future__ import annotations

import logging

from policy.config.schema import Config, PolicyConfig
from policy.config.versions import read_config, write_config
from policy.values import models
from serving.store.versions import VersionStore

log = logging.getLogger(__name__)


async def register_policy(
    store: VersionStore, name: str, config: Config, now_ms: int
) -> frozenset[str]:
    """Put what the file says of one policy in force: its arms and prices at once, the rest as a
    version. The versions that this needs."""
    version = await _registered(store, name, config.policies[name], now_ms)
    await store.put_catalog(name, config.arms.revision, config.arms.to_stored(), now_ms)
    return frozenset({version, *await _challenge(store, name, version, config, now_ms)})


async def register(store: VersionStore, name: str, config: PolicyConfig, now_ms: int) -> str:
    """The version of a policy's configuration, registered if it is new."""
    encoder = models.default_encoder(config)
    return await store.register(
        name,
        config.fingerprint(encoder.fingerprint),
        write_config(config),
        encoder.to_bytes(),
        now_ms,
    )


async def _registered(store: VersionStore, name: str, wanted: PolicyConfig, now_ms: int) -> str:
    """The version of the file's policy: the champion where it is configured alike, so that one
    that was fitted (`pointsman train`) stays what the file says."""
    champion = (await store.state(name)).get("champion")
    if champion is not None:
        stored, _ = await store.version(name, champion)
        if read_config(stored).fingerprint("") == wanted.fingerprint(""):
            return champion
    return await register(store, name, wanted, now_ms)


async def _challenge(
    store: VersionStore, name: str, version: str, config: Config, now_ms: int
) -> list[str]:
    """Settle the roles that follow from the file, and say where it isn't what serves; the versions
    that have a role, and the one that the file asks for."""
    wanted, share = config.challengers.get(name), config.shares.get(name, 0.0)
    challenger = None
    if wanted is not None:
        challenger = await register(store, name, wanted, now_ms)
    own = config.policies[name].fingerprint("")
    roles = await store.challenge(name, version, challenger, share, now_ms, own)
    if version != roles.champion:
        log.warning(
            "policy %s: the configuration file is version %s, champion is version %s and "
            "keeps serving; see `pointsman gate --help`",
            name,
            version,
            roles.champion,
        )
    if roles.challenger is not None:
        log.info(
            "policy %s: version %s learns in shadow, with a share of %g of the draw",
            name,
            roles.challenger,
            roles.share,
        )
    if challenger is not None and challenger == roles.challenger and share != roles.share:
        log.warning(
            "policy %s: the file's share of %g isn't in force since it was set to %g later on; "
            "it acts when it changes",
            name,
            share,
            roles.share,
        )
    return list(filter(None, (challenger, roles.champion, roles.challenger)))
