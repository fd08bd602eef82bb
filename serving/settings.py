"""Settings of a process: the environment variables POINTSMAN_*, read only when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is the environment variable POINTSMAN_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="POINTSMAN_", env_ignore_empty=True, frozen=True)

    host: str = Field("127.0.0.1", description="Address to serve on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to serve on; 0 picks a free one.")
    open: bool = Field(
        False, description="Serve anybody who can reach the address, while there are no keys."
    )
    ssl_certfile: Path | None = Field(
        None, description="Serve TLS, with this certificate (and its chain; PEM)."
    )
    ssl_keyfile: Path | None = Field(
        None, description="The private key of the certificate, if not in the same file."
    )
    data: Path = Field(Path("data"), description="Folder of the embedded server's files.")
    log: str | None = Field(
        None, description="Where the log is kept: a folder or any URI that fsspec knows. [DATA/log]"
    )
    config: Path = Field(Path("pointsman.toml"), description="Arms and policies.")
    redis_url: str | None = Field(
        None, description="A Redis or Valkey of your own; without it an embedded one is started."
    )
    fsync: Literal["always", "everysec"] = Field(
        "everysec", description="When the embedded server's append-only file reaches the disk."
    )
    max_memory_mb: int = Field(
        1024, ge=16, description="Memory cap of the embedded server; beyond it writes answer 503."
    )
    workers: int = Field(1, ge=1, le=256, description="Serving processes.")
    drain_s: float = Field(
        1.0, ge=0, le=600, description="How long a service that is told to stop still answers."
    )
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Larger bodies answer 413, ...")
    max_query_bytes: int = Field(
        16_777_216, ge=1024, description="... on /route and /route/batch those larger than this."
    )
    max_batch: int = Field(1_024, ge=1, le=10_000, description="Longer batches answer 413.")
    max_inflight: int = Field(
        64, ge=1, le=100_000, description="Requests that a process has under way; more answer 429."
    )
    max_connections: int = Field(
        2_048, ge=1, le=1_000_000, description="Connections of a process; more are closed."
    )
    request_timeout_s: float = Field(
        30.0, gt=0, le=3_600, description="Within which a request must come in, or is cut off."
    )
    degraded: Literal["refuse", "serve"] = Field(
        "refuse",
        description="Without Redis: refuse with 503, or serve from the last snapshot, unlogged.",
    )
    store_timeout_ms: int = Field(
        500, ge=10, le=60_000, description="Longest that a request waits for Redis, in all."
    )
    wait_replicas: int = Field(
        0,
        ge=0,
        le=10,
        description="Replicas that must have a decision or reward before its answer.",
    )
    token_secret: str | None = Field(
        None,
        min_length=32,
        repr=False,
        description="What unlogged decisions are signed with, on every host the same. "
        "[made once, in DATA/token.secret]",
    )
    publish_interval_s: float = Field(
        0.1, gt=0, le=60, description="Shortest time between two snapshots of the learner."
    )
    checkpoint_interval_s: float = Field(
        2.0, gt=0, le=600, description="Shortest time between two checkpoints of the learner."
    )
    archive_interval_s: float = Field(
        5.0, gt=0, le=600, description="Longest time before an entry is moved to the log."
    )

    watch_interval_s: float = Field(
        30.0, gt=0, le=3600, description="Shortest time between two looks at a new champion."
    )
    log_format: Literal["json", "text"] | None = Field(
        None, description="Lines on stderr. [text on a terminal, else json]"
    )
    access_log: bool = Field(False, description="A line per request as well.")

    def log_path(self) -> str:
        """Where the log is kept, by default beside the embedded server's files."""
        return self.log or str(self.data / "log")

    def kept_config(self) -> Path:
        """What the configuration file said when it was last right: of a service that runs."""
        return self.data / "last.toml"

    def environment(self) -> dict[str, str]:
        """The variables that give a child process these very settings."""
        given = self.model_dump(mode="json", exclude_none=True)
        return {f"POINTSMAN_{name.upper()}": str(value) for name, value in given.items()}
