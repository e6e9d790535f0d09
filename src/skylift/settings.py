"""Settings: read once, frozen. From arguments, then `SKYLIFT_...` variables, then `skylift.toml`."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from skylift.core.errors import invalid


class Settings(BaseSettings):
    """Everything a server can be told. Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="SKYLIFT_", toml_file="skylift.toml", frozen=True)

    data_dir: Path = Path("skylift-data")
    database_url: str = Field(default="", description="Empty: SQLite in data_dir.")
    keys_dir: Path | None = Field(
        default=None, description="The two online keys; else keys/ in data_dir. Several servers share them."
    )
    new_keys: bool = Field(
        default=False,
        description="Start with other online keys than the roots name: a key ceremony is about to.",
    )
    ca_passphrase: str = Field(
        default="",
        description="Of the devices' certificate authority's keys, which are in keys_dir. Empty: one that is "
        "made at the first start and kept in the database.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Networks, separated by commas, of proxies that verify clients' certificates and say "
        "whose it was (`x-forwarded-client-cert`). From everybody else that header is taken off.",
    )
    proxy_secret: str = Field(
        default="",
        description="What such a proxy must send in `x-skylift-proxy-secret`; needed beyond this machine.",
    )
    require_client_certificates: bool = Field(
        default=False, description="A device without a client certificate can only enroll and get one."
    )
    tls_client_ca: Path | None = Field(
        default=None,
        description="With tls_certificate: only clients with a certificate of these authorities (PEM) get a "
        "connection. Who they are is still said by their tokens; through a proxy, by the certificate.",
    )
    require_signed_reports: bool = Field(
        default=False,
        description="Also of devices that have no key: what they report as final is refused. A device that "
        "has a key must always sign.",
    )
    blobs: str = Field(
        default="",
        description="A folder or s3://bucket/prefix that servers share; else blobs/ in data_dir.",
    )
    blobs_endpoint: str = Field(
        default="", description="Of an S3-compatible store that is not Amazon's; else AWS_ENDPOINT_URL."
    )
    blobs_public_endpoint: str = Field(
        default="", description="Where devices reach that store, if not at blobs_endpoint."
    )
    blobs_region: str = Field(default="", description="Else AWS_REGION, or us-east-1.")
    blobs_allow_http: bool = Field(default=False, description="Speak to the store without TLS.")
    admin_token: str = Field(
        default="", description="The first admin's token; else made at the first start, into admin.token."
    )
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    mqtt_url: str = Field(
        default="", description="Empty: embedded broker; off: no doorbell; mqtt://... external."
    )
    mqtt_port: int = Field(
        default=1883, ge=0, le=65535, description="Of the embedded broker; 0: any free one."
    )
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    max_body_bytes: int = Field(default=1 << 20, ge=1024)
    max_image_bytes: int = Field(default=4 << 30, ge=1)
    max_trust_file_bytes: int = Field(
        default=16 << 10,
        ge=4 << 10,
        le=512 << 10,
        description="Of roots, delegations and products' roles: what a microcontroller reads. A fleet "
        "without any may have larger ones.",
    )
    delta_max_ratio: float = Field(
        default=0.7, gt=0, le=1, description="Of the compressed full image; larger deltas are not kept."
    )
    delta_workers: int = Field(
        default=1, ge=0, le=64, description="Deltas and packed images made at once; 0: by other servers."
    )
    delta_worker_memory_bytes: int = Field(
        default=4 << 30, ge=256 << 20, description="Of each, besides the two images it maps."
    )
    delta_worker_seconds: float = Field(default=1800, ge=1, description="Until one is given up.")
    delta_cache_bytes: int = Field(
        default=16 << 30, ge=0, description="Of all deltas and packed images; beyond it the coldest go."
    )
    check_interval_s: int = Field(default=300, ge=1)
    check_interval_waiting_s: int = Field(default=60, ge=1)
    check_interval_busy_s: int = Field(default=30, ge=1)
    pending_deadline_s: int = Field(default=30 * 60, ge=1)
    downloading_deadline_s: int = Field(default=60 * 60, ge=1)
    installing_deadline_s: int = Field(default=30 * 60, ge=1)
    validating_deadline_s: int = Field(default=20 * 60, ge=1)
    approval_above_devices: int = Field(
        default=0,
        ge=0,
        description="A deployment to more devices waits until a second person has approved it; 0: never.",
    )
    public_url: str = Field(
        default="",
        description="How people reach this server, such as https://ota.example; for links in messages.",
    )
    oidc_issuer: str = Field(default="", description="Of the OpenID Connect provider that people sign in at.")
    oidc_client_id: str = ""
    oidc_client_secret: str = ""
    oidc_title: str = Field(default="single sign-on", description="What the sign-in page calls it.")
    oidc_scopes: str = "openid profile email"
    oidc_name_claim: str = Field(default="preferred_username", description="The claim with the user's name.")
    oidc_role_claim: str = Field(default="groups", description="The claim that says what somebody may do.")
    oidc_roles: str = Field(
        default="",
        description="Its values and our roles, such as `admins=admin, ops=operator, *=viewer`; the first "
        "that fits. Whoever fits none is not let in.",
    )
    smtp_url: str = Field(
        default="",
        description="Where mail is handed in: smtp://user:password@host:587 (TLS where it is offered, "
        "and always before a password) or smtps://host:465. Empty: no mail.",
    )
    mail_from: str = Field(default="", description="The address that mail comes from; needed with smtp_url.")
    retention_days: int = Field(
        default=0,
        ge=0,
        description="What ended so long ago is deleted, with its updates and events; 0: never.",
    )
    metrics_public: bool = Field(default=False, description="/metrics without a token.")

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'skylift.db'}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def read(**given: Any) -> Settings:
    """The settings; `given` wins. `Rejected` names the first field that is wrong."""
    try:
        return Settings(**given)
    except tomllib.TOMLDecodeError as e:
        raise invalid("skylift.toml", "the file", f"must be TOML: {e}") from e
    except ValidationError as e:
        wrong = e.errors()[0]
        field = ".".join(str(part) for part in wrong["loc"]) or "settings"
        raise invalid(field, wrong["input"], wrong["msg"]) from e
