#pragma once
#include <stddef.h>
#include <stdint.h>
typedef int32_t psa_status_t;
typedef uint32_t psa_key_id_t, psa_algorithm_t;
typedef uint16_t psa_key_type_t;
#define PSA_SUCCESS 0
#define PSA_ALG_SHA_256 0x02000009u
#define PSA_ALG_ECDSA(hash) (0x06000600u | ((hash) & 0xff))
#define PSA_ECC_FAMILY_SECP_R1 0x12
#define PSA_KEY_TYPE_ECC_PUBLIC_KEY(curve) (psa_key_type_t)(0x4100 | (curve))
#define PSA_KEY_USAGE_VERIFY_HASH 0x2000u
typedef struct {
  uint64_t own[32];
} psa_hash_operation_t;
typedef struct {
  uint64_t own[8];
} psa_key_attributes_t;
psa_status_t psa_crypto_init(void);
psa_hash_operation_t psa_hash_operation_init(void);
psa_status_t psa_hash_setup(psa_hash_operation_t*, psa_algorithm_t);
psa_status_t psa_hash_update(psa_hash_operation_t*, const uint8_t*, size_t);
psa_status_t psa_hash_finish(psa_hash_operation_t*, uint8_t*, size_t, size_t*);
psa_status_t psa_hash_abort(psa_hash_operation_t*);
psa_key_attributes_t psa_key_attributes_init(void);
void psa_set_key_type(psa_key_attributes_t*, psa_key_type_t);
void psa_set_key_bits(psa_key_attributes_t*, size_t);
void psa_set_key_usage_flags(psa_key_attributes_t*, uint32_t);
void psa_set_key_algorithm(psa_key_attributes_t*, psa_algorithm_t);
psa_status_t psa_import_key(const psa_key_attributes_t*, const uint8_t*, size_t, psa_key_id_t*);
psa_status_t psa_verify_hash(psa_key_id_t, psa_algorithm_t, const uint8_t*, size_t, const uint8_t*, size_t);
psa_status_t psa_destroy_key(psa_key_id_t);
