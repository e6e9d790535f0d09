// P-256 with a memory, for proofs of a million lives: what was verified once is not verified again. It is the core's own
// code beneath; its answer is the same for the same bytes.
#include <map>
#include <string>

#define p256_verify p256_verify_itself
#include "../src/skylift/p256.cpp"
#undef p256_verify

namespace skylift {

bool p256_verify(const uint8_t key[64], const uint8_t digest[32], const uint8_t* signature, uint32_t n);
bool p256_verify(const uint8_t key[64], const uint8_t digest[32], const uint8_t* signature, uint32_t n) {
  static std::map<std::string, bool> known;
  std::string asked(reinterpret_cast<const char*>(key), 64);
  asked.append(reinterpret_cast<const char*>(digest), 32).append(reinterpret_cast<const char*>(signature), n);
  const auto found = known.find(asked);
  if (found != known.end()) return found->second;
  return known[asked] = p256_verify_itself(key, digest, signature, n);
}

}  // namespace skylift
