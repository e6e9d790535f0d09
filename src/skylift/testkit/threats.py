"""The threat model as data: who may attack, what he can do and cannot, and the test that plays him.

docs/trust.md is generated from these tables (`python docs/generate.py`), and tests/attacks holds that every
test that is named here exists.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attacker:
    """A row of the compromise matrix: what he owns; `test` plays both columns."""

    owns: str
    can: str
    cannot: str
    test: str


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack by name, what meets it, and the reason a device reports ("-": it waits, and reports none)."""

    name: str
    met_by: str
    reason: str
    test: str


MATRIX = (
    Attacker(
        "CDN, network",
        "withhold, delay (seen within a day)",
        "change, downgrade, misdirect",
        "test_who_owns_the_network_can_withhold_and_no_more",
    ),
    Attacker(
        "server and all online keys",
        "stop updates; order an already released, unrevoked image at or above the floor to hardware it fits; "
        "lie to operators",
        "run new or altered code; cross hardware; go below the floor; change roots",
        "test_who_owns_the_server_orders_what_was_released_and_no_more",
    ),
    Attacker(
        "one release key (and the server)",
        "as above",
        "new code",
        "test_one_release_key_adds_nothing_to_the_server",
    ),
    Attacker(
        "two release keys of a product, and the server",
        "new code on that product's devices",
        "other products; survive a rotation",
        "test_two_release_keys_reach_the_devices_of_their_product_only",
    ),
    Attacker("one root key", "nothing", "-", "test_one_root_key_is_worth_nothing"),
    Attacker(
        "one device",
        "that device; false reports about itself",
        "other devices; signing; reading their orders",
        "test_one_device_speaks_for_itself_only",
    ),
)

ATTACKS = (
    Attack("arbitrary software", "the digest that two release keys signed", "`hash_mismatch`",
           "test_arbitrary_software"),
    Attack("endless data", "at most the signed length, at most so many bytes of metadata",
           "`signature_invalid`, `hash_mismatch`", "test_endless_data"),
    Attack("slow retrieval", "a minimum rate; a deadline for every answer, head and all", "-",
           "test_slow_retrieval"),
    Attack("slow retrieval, just fast enough", "a deadline for the whole download", "`download_error`",
           "test_slow_retrieval_past_its_deadline"),
    Attack("metadata rollback", "versions never sink", "`metadata_rollback`", "test_metadata_rollback"),
    Attack("image rollback", "the security floor", "`below_security_floor`", "test_image_rollback"),
    Attack("freeze", "timestamps live a day", "`metadata_expired`", "test_freeze"),
    Attack("replay of an old repository", "versions, and the newest time ever signed", "`metadata_rollback`",
           "test_replay_of_an_old_repository"),
    Attack("mix and match", "the timestamp names the snapshot's digest, the snapshot every version",
           "`signature_invalid`, `metadata_rollback`", "test_mix_and_match"),
    Attack("another device's order", "every file of an order says whose it is", "`signature_invalid`",
           "test_cross_device_replay"),
    Attack("wrong hardware", "the release keys say which hardware", "`wrong_hardware`",
           "test_wrong_hardware"),
    Attack("fast-forward", "a new root with new online keys makes devices forget what the old ones said",
           "`metadata_expired`", "test_fast_forward_and_recovery_from_it"),
    Attack("fast-forward of the image repository", "a new root with new online keys, likewise",
           "`metadata_rollback`", "test_fast_forward_of_the_image_repository_and_recovery_from_it"),
    Attack("one stolen release key with all online keys", "two of three must sign", "`signature_invalid`",
           "test_one_stolen_release_key_with_all_online_keys"),
    Attack("a revoked key", "new delegations by the targets keys", "`signature_invalid`",
           "test_a_revoked_key"),
    Attack("the director's next root as the image's", "a root says whose it is", "`signature_invalid`",
           "test_the_directors_next_root_as_the_images"),
    Attack("tampered, truncated, oversized and bomb deltas",
           "a delta is trusted for nothing; the full image comes instead", "-",
           "test_tampered_truncated_oversized_and_bomb_deltas"),
    Attack("metadata bombs", "bounds on size, depth and counts before anything is verified",
           "`signature_invalid`", "test_metadata_bombs"),
    Attack("path tricks in target names", "names lead nowhere: an image is found by its digest",
           "`signature_invalid`", "test_path_tricks_in_target_names"),
    Attack("unicode look-alikes", "metadata is ASCII without escapes", "`signature_invalid`",
           "test_unicode_look_alikes"),
    Attack("a clock set to 1970", "the newest time ever signed counts", "`metadata_expired`",
           "test_a_clock_set_to_1970"),
    Attack("a clock set to 2100", "nothing is installed, nothing is learned from it", "`metadata_expired`",
           "test_a_clock_set_to_2100"),
    Attack("a proxy that strips, reorders and duplicates", "what is whole is installed; the rest is refused",
           "`signature_invalid`", "test_a_proxy_that_strips_reorders_and_duplicates"),
    Attack("a certificate that nobody can read", "whatever it is, it is no certificate for this key", "-",
           "test_a_certificate_that_nobody_can_read_ends_no_agent"),
    Attack("a log that forks", "a device pins the log it saw: every later one must begin with it",
           "`signature_invalid`, `metadata_rollback`", "test_a_log_that_forks"),
    Attack("different releases for different devices",
           "each is in a log; devices report which log, and two that differ are seen", "-",
           "test_two_devices_are_not_shown_different_logs_unseen"),
)  # fmt: skip
