// The crypto port: SHA-256 and the verification of ECDSA P-256. Three implementations, one is linked:
// the core's own (sha256.cpp, p256.cpp: hosts, benches, chips without), PSA (ESP-IDF 5.x and 6), and whatever else
// defines these five functions. Verification only, so nothing here has to hide its timing.
#pragma once
#include <stddef.h>
#include <stdint.h>

#if defined(SKYLIFT_CRYPTO_PSA)
#include <psa/crypto.h>
#endif

namespace skylift {

struct Sha256 {
#if defined(SKYLIFT_CRYPTO_PSA)
  psa_hash_operation_t operation;
#else
  uint32_t state[8];
  uint64_t bytes;
  uint8_t block[64];
#endif
  void begin();
  void add(const void* data, size_t n);
  void end(uint8_t out[32]);
};

// Whether `signature` (DER, as TUF writes it) is this key's of this digest. `key`: x and y, 32 bytes each.
bool p256_verify(const uint8_t key[64], const uint8_t digest[32], const uint8_t* signature, uint32_t size);
// The two numbers of a DER signature, 32 bytes each; strict: one way to write each.
bool der_signature(const uint8_t* der, uint32_t size, uint8_t r[32], uint8_t s[32]);

}  // namespace skylift
