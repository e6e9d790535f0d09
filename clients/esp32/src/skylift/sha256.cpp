// FIPS 180-4.
#include "bytes.hpp"
#include "crypto.hpp"

#if !defined(SKYLIFT_CRYPTO_PSA)
namespace skylift {
namespace {

const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

inline uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

void crunch(uint32_t* h, const uint8_t* p) {
  uint32_t w[16], v[8];
  copy(v, h, sizeof v);
  for (int k = 0; k < 64; k++) {
    if (k < 16) {
      w[k] = static_cast<uint32_t>(p[4 * k]) << 24 | static_cast<uint32_t>(p[4 * k + 1]) << 16 |
             static_cast<uint32_t>(p[4 * k + 2]) << 8 | p[4 * k + 3];
    } else {
      const uint32_t a = w[(k + 1) & 15], b = w[(k + 14) & 15];
      w[k & 15] += w[(k + 9) & 15] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
    }
    const uint32_t s1 = turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25), ch = (v[4] & v[5]) ^ (~v[4] & v[6]);
    const uint32_t t1 = v[7] + s1 + ch + K[k] + w[k & 15];
    const uint32_t s0 = turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22);
    const uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    for (int i = 7; i; i--) v[i] = v[i - 1];
    v[4] += t1;
    v[0] = t1 + t2;
  }
  for (int k = 0; k < 8; k++) h[k] += v[k];
}

}  // namespace

void Sha256::begin() {
  static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  copy(state, first, sizeof state);
  bytes = 0;
}

void Sha256::add(const void* data, size_t n) {
  const uint8_t* p = static_cast<const uint8_t*>(data);
  size_t have = bytes & 63;
  bytes += n;
  while (n) {
    if (!have && n >= 64) {
      crunch(state, p);
      p += 64;
      n -= 64;
      continue;
    }
    const size_t part = 64 - have < n ? 64 - have : n;
    copy(block + have, p, part);
    p += part;
    n -= part;
    have = (have + part) & 63;
    if (!have) crunch(state, block);
  }
}

void Sha256::end(uint8_t out[32]) {
  static const uint8_t pad[64] = {0x80};
  uint8_t size[8];
  for (int k = 0; k < 8; k++) size[k] = static_cast<uint8_t>(bytes * 8 >> (56 - 8 * k));
  add(pad, 1 + ((119 - (bytes & 63)) & 63));
  add(size, 8);
  for (int k = 0; k < 32; k++) out[k] = static_cast<uint8_t>(state[k / 4] >> (24 - 8 * (k & 3)));
}

}  // namespace skylift
#endif
