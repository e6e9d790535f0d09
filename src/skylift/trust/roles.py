"""The roles of both repositories: thresholds and lives, as one table (docs/trust explains who holds what)."""

from dataclasses import dataclass
from datetime import timedelta

IMAGE = "image"
DIRECTOR = "director"


@dataclass(frozen=True, slots=True)
class RoleRule:
    """How many keys, how many must sign, how long a signature lives."""

    keys: int
    threshold: int
    life: timedelta


# What a product's release keys are held to, under the role named like the product.
PRODUCT = RoleRule(3, 2, timedelta(days=90))
RULES: dict[tuple[str, str], RoleRule] = {
    (IMAGE, "root"): RoleRule(3, 2, timedelta(days=365)),
    (IMAGE, "targets"): RoleRule(3, 2, timedelta(days=180)),
    (IMAGE, "snapshot"): RoleRule(1, 1, timedelta(days=7)),
    (IMAGE, "timestamp"): RoleRule(1, 1, timedelta(days=1)),
    (DIRECTOR, "root"): RoleRule(3, 2, timedelta(days=365)),
    (DIRECTOR, "targets"): RoleRule(1, 1, timedelta(days=3)),
    (DIRECTOR, "snapshot"): RoleRule(1, 1, timedelta(days=7)),
    (DIRECTOR, "timestamp"): RoleRule(1, 1, timedelta(days=1)),
}
# What people sign beside products' roles, by the names under which it waits; no product has a colon.
IMAGE_ROOT, DIRECTOR_ROOT, IMAGE_TARGETS = "image:root", "director:root", "image:targets"
ROOTS = {IMAGE_ROOT: IMAGE, DIRECTOR_ROOT: DIRECTOR}
TOP_LEVEL = frozenset(role for _, role in RULES)


def rule(repo: str, role: str) -> RoleRule:
    """The rule of a role; every role of the image repo that is not top level is a product's."""
    return RULES.get((repo, role), PRODUCT)


def target_path(product: str, version: str, device_type: str) -> str:
    """Where a release's image for one device type stands in the image repo."""
    return f"{product}/{version}/{device_type}"
