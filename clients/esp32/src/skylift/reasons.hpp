// Why an update did not succeed: the closed list of the server's (docs/reference/lifecycle.md), beside a sentence.
#pragma once
#include "bytes.hpp"

namespace skylift {

enum class Reason : uint8_t {
  NONE,
  DOWNLOAD_ERROR,
  HASH_MISMATCH,
  SIGNATURE_INVALID,
  METADATA_EXPIRED,
  METADATA_ROLLBACK,
  WRONG_HARDWARE,
  BELOW_SECURITY_FLOOR,
  NO_SPACE,
  BATTERY_LOW,
  INSTALL_ERROR,
  BOOT_FAILED,
  HEALTH_CHECK_FAILED,
  TIMEOUT,
  ABORTED,
  COUNT
};
const char* name_of(Reason reason);

constexpr uint32_t WORDS = 96;
struct Fault {
  Reason reason;
  char words[WORDS];
  explicit operator bool() const { return reason != Reason::NONE; }
  void clear() { reason = Reason::NONE, words[0] = 0; }
  // Says why, in a sentence of two parts, and is false: `return fault.set(...)`.
  bool set(Reason why, const char* what, const char* sentence = "");
};

}  // namespace skylift
