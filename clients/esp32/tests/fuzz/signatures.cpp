// P-256 for the fuzzer: the core's own, or keys that somebody has stolen.
#include <cstring>
#include <set>

#include "fuzz.hpp"

#define p256_verify p256_verify_itself
#include "../../src/skylift/p256.cpp"
#undef p256_verify

namespace fuzz {

bool keys_are_stolen = false;

}  // namespace fuzz

namespace skylift {

bool p256_verify(const uint8_t key[64], const uint8_t digest[32], const uint8_t* signature, uint32_t n);
bool p256_verify(const uint8_t key[64], const uint8_t digest[32], const uint8_t* signature, uint32_t n) {
  struct Made {
    uint8_t key[64], r[32], s[32];
    bool operator<(const Made& other) const { return std::memcmp(this, &other, sizeof other) < 0; }
  };
  static std::set<Made> made;
  Made asked;
  if (!der_signature(signature, n, asked.r, asked.s)) return p256_verify_itself(key, digest, signature, n);
  copy(asked.key, key, 64);
  if (fuzz::keys_are_stolen) return made.count(asked);
  if (!p256_verify_itself(key, digest, signature, n)) return false;
  made.insert(asked);
  return true;
}

}  // namespace skylift
