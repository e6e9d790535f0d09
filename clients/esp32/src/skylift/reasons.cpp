#include "reasons.hpp"

namespace skylift {

const char* name_of(Reason reason) {
  static const char* const NAMES[] = {"",
                                      "download_error",
                                      "hash_mismatch",
                                      "signature_invalid",
                                      "metadata_expired",
                                      "metadata_rollback",
                                      "wrong_hardware",
                                      "below_security_floor",
                                      "no_space",
                                      "battery_low",
                                      "install_error",
                                      "boot_failed",
                                      "health_check_failed",
                                      "timeout",
                                      "aborted"};
  static_assert(sizeof NAMES / sizeof *NAMES == static_cast<size_t>(Reason::COUNT), "a reason without its name");
  return NAMES[static_cast<size_t>(reason)];
}

bool Fault::set(Reason why, const char* what, const char* sentence) {
  reason = why;
  Line(words, sizeof words).put(what).put(sentence);
  return false;
}

}  // namespace skylift
