// SEQUENCE { INTEGER r, INTEGER s }, as X.690 wants it: lengths and leading zeros in the one allowed way.
#include "bytes.hpp"
#include "crypto.hpp"

namespace skylift {
namespace {

// A positive INTEGER at *at, as 32 bytes.
bool integer(const uint8_t* der, uint32_t size, uint32_t* at, uint8_t to[32]) {
  if (size - *at < 3 || der[*at] != 0x02) return false;
  uint32_t n = der[*at + 1];
  const uint8_t* p = der + *at + 2;
  if (!n || n > size - *at - 2 || p[0] & 0x80) return false;
  *at += 2 + n;
  if (!p[0] && n > 1) {
    if (!(p[1] & 0x80)) return false;
    p++;
    n--;
  }
  if (n > 32) return false;
  fill(to, 0, 32);
  copy(to + 32 - n, p, n);
  return true;
}

}  // namespace

bool der_signature(const uint8_t* der, uint32_t size, uint8_t r[32], uint8_t s[32]) {
  uint32_t at = 2;
  return size >= 8 && size <= 72 && der[0] == 0x30 && der[1] == size - 2 && integer(der, size, &at, r) &&
         integer(der, size, &at, s) && at == size;
}

}  // namespace skylift
