// SHA-256 and ECDSA P-256 by PSA: the chip's own units where ESP-IDF drives them. -DSKYLIFT_CRYPTO_PSA
#include "../skylift/crypto.hpp"

#if defined(SKYLIFT_CRYPTO_PSA)
namespace skylift {

void Sha256::begin() {
  psa_crypto_init();  // as often as one likes
  operation = psa_hash_operation_init();
  psa_hash_setup(&operation, PSA_ALG_SHA_256);
}

void Sha256::add(const void* data, size_t n) { psa_hash_update(&operation, static_cast<const uint8_t*>(data), n); }

void Sha256::end(uint8_t out[32]) {
  size_t size = 0;
  if (psa_hash_finish(&operation, out, 32, &size) == PSA_SUCCESS) return;
  for (int k = 0; k < 32; k++) out[k] = 0;  // no image and no file has this digest
  psa_hash_abort(&operation);
}

bool p256_verify(const uint8_t key[64], const uint8_t digest[32], const uint8_t* signature, uint32_t size) {
  uint8_t raw[64], point[65] = {4};
  if (!der_signature(signature, size, raw, raw + 32)) return false;
  for (int k = 0; k < 64; k++) point[1 + k] = key[k];
  psa_key_attributes_t about = psa_key_attributes_init();
  psa_set_key_type(&about, PSA_KEY_TYPE_ECC_PUBLIC_KEY(PSA_ECC_FAMILY_SECP_R1));
  psa_set_key_bits(&about, 256);
  psa_set_key_usage_flags(&about, PSA_KEY_USAGE_VERIFY_HASH);
  psa_set_key_algorithm(&about, PSA_ALG_ECDSA(PSA_ALG_SHA_256));
  psa_key_id_t id;
  if (psa_crypto_init() != PSA_SUCCESS || psa_import_key(&about, point, sizeof point, &id) != PSA_SUCCESS) return false;
  const psa_status_t found = psa_verify_hash(id, PSA_ALG_ECDSA(PSA_ALG_SHA_256), digest, 32, raw, sizeof raw);
  psa_destroy_key(id);
  return found == PSA_SUCCESS;
}

}  // namespace skylift
#endif
