// Verification of ECDSA on NIST P-256 (FIPS 186-5, 6.4.2), small before fast: Montgomery multiplication in 32-bit
// limbs, Jacobian points, both products of a verification in one pass over their bits.
#include "bytes.hpp"
#include "crypto.hpp"

#if !defined(SKYLIFT_CRYPTO_PSA)
namespace skylift {
namespace {

using Num = uint32_t[8];  // little end first

struct Ring {
  Num m, square, one;  // the modulus; 2^512 and 2^256 in it
  uint32_t inverse;    // -1 / m in 2^32
};
const Ring P = {{0xffffffff, 0xffffffff, 0xffffffff, 0, 0, 0, 1, 0xffffffff},
                {3, 0, 0xffffffff, 0xfffffffb, 0xfffffffe, 0xffffffff, 0xfffffffd, 4},
                {1, 0, 0, 0xffffffff, 0xffffffff, 0xffffffff, 0xfffffffe, 0},
                1};
const Ring N = {{0xfc632551, 0xf3b9cac2, 0xa7179e84, 0xbce6faad, 0xffffffff, 0xffffffff, 0, 0xffffffff},
                {0xbe79eea2, 0x83244c95, 0x49bd6fa6, 0x4699799c, 0x2b6bec59, 0x2845b239, 0xf3d95620, 0x66e12d94},
                {0x039cdaaf, 0x0c46353d, 0x58e8617b, 0x43190552, 0, 0, 0xffffffff, 0},
                0xee00bc4f};
const Num B = {0x29c4bddf, 0xd89cdf62, 0x78843090, 0xacf005cd, 0xf7212ed6, 0xe5a220ab, 0x04874834, 0xdc30061d};
const Num N_MINUS_2 = {0xfc63254f, 0xf3b9cac2, 0xa7179e84, 0xbce6faad, 0xffffffff, 0xffffffff, 0, 0xffffffff};
const Num P_MINUS_N = {0x039cdaae, 0x0c46353d, 0x58e8617b, 0x43190553, 0, 0, 0, 0};

struct Point {
  Num x, y, z;  // Jacobian, in Montgomery form; z = 0: the point at infinity
};
const Point G = {
    {0x18a9143c, 0x79e730d4, 0x5fedb601, 0x75ba95fc, 0x77622510, 0x79fb732b, 0xa53755c6, 0x18905f76},
    {0xce95560a, 0xddf25357, 0xba19e45c, 0x8b4ab8e4, 0xdd21f325, 0xd2e88688, 0x25885d85, 0x8571ff18},
    {1, 0, 0, 0xffffffff, 0xffffffff, 0xffffffff, 0xfffffffe, 0}};

void set(Num to, const Num from) { copy(to, from, sizeof(Num)); }
bool zero(const Num a) {
  uint32_t any = 0;
  for (int k = 0; k < 8; k++) any |= a[k];
  return !any;
}
bool below(const Num a, const Num b) {
  for (int k = 7; k >= 0; k--)
    if (a[k] != b[k]) return a[k] < b[k];
  return false;
}
uint32_t add_raw(Num to, const Num a, const Num b) {
  uint64_t carry = 0;
  for (int k = 0; k < 8; k++, carry >>= 32) to[k] = static_cast<uint32_t>(carry += static_cast<uint64_t>(a[k]) + b[k]);
  return static_cast<uint32_t>(carry);
}
uint32_t sub_raw(Num to, const Num a, const Num b) {
  int64_t borrow = 0;
  for (int k = 0; k < 8; k++, borrow >>= 32) to[k] = static_cast<uint32_t>(borrow += static_cast<int64_t>(a[k]) - b[k]);
  return static_cast<uint32_t>(borrow & 1);
}
void add(const Ring& r, Num to, const Num a, const Num b) {
  Num less;
  const uint32_t carry = add_raw(to, a, b), borrow = sub_raw(less, to, r.m);
  if (carry || !borrow) set(to, less);
}
void sub(const Ring& r, Num to, const Num a, const Num b) {
  if (sub_raw(to, a, b)) add_raw(to, to, r.m);
}
void mul(const Ring& r, Num to, const Num a, const Num b) {
  uint32_t t[10] = {0};
  for (int i = 0; i < 8; i++) {
    uint64_t c = 0;
    for (int k = 0; k < 8; k++, c >>= 32)
      t[k] = static_cast<uint32_t>(c += static_cast<uint64_t>(a[k]) * b[i] + t[k]);
    c += t[8];
    t[8] = static_cast<uint32_t>(c);
    t[9] = static_cast<uint32_t>(c >> 32);
    const uint32_t q = t[0] * r.inverse;
    c = (static_cast<uint64_t>(q) * r.m[0] + t[0]) >> 32;
    for (int k = 1; k < 8; k++, c >>= 32)
      t[k - 1] = static_cast<uint32_t>(c += static_cast<uint64_t>(q) * r.m[k] + t[k]);
    c += t[8];
    t[7] = static_cast<uint32_t>(c);
    t[8] = t[9] + static_cast<uint32_t>(c >> 32);
  }
  Num less;
  const uint32_t borrow = sub_raw(less, t, r.m);
  set(to, t[8] || !borrow ? less : t);
}
void squared(const Ring& r, Num to, const Num a) { mul(r, to, a, a); }

void from_bytes(Num to, const uint8_t* from) {
  for (int k = 0; k < 8; k++) {
    const uint8_t* p = from + 28 - 4 * k;
    to[k] = static_cast<uint32_t>(p[0]) << 24 | static_cast<uint32_t>(p[1]) << 16 | static_cast<uint32_t>(p[2]) << 8 | p[3];
  }
}

void twice(Point& p) {  // a = -3
  Num delta, gamma, beta, alpha, t;
  squared(P, delta, p.z);
  squared(P, gamma, p.y);
  mul(P, beta, p.x, gamma);
  sub(P, t, p.x, delta);
  add(P, alpha, p.x, delta);
  mul(P, alpha, alpha, t);
  add(P, t, alpha, alpha);
  add(P, alpha, alpha, t);
  add(P, t, p.y, p.z);
  squared(P, t, t);
  sub(P, t, t, gamma);
  sub(P, p.z, t, delta);
  add(P, beta, beta, beta);
  add(P, beta, beta, beta);
  squared(P, p.x, alpha);
  sub(P, p.x, p.x, beta);
  sub(P, p.x, p.x, beta);
  sub(P, t, beta, p.x);
  mul(P, t, alpha, t);
  squared(P, gamma, gamma);
  for (int k = 0; k < 3; k++) add(P, gamma, gamma, gamma);
  sub(P, p.y, t, gamma);
}

void plus(Point& p, const Point& q) {
  if (zero(q.z)) return;
  if (zero(p.z)) {
    p = q;
    return;
  }
  Num z1, z2, u1, u2, s1, s2, h, r, t;
  squared(P, z1, p.z);
  squared(P, z2, q.z);
  mul(P, u1, p.x, z2);
  mul(P, u2, q.x, z1);
  mul(P, t, q.z, z2);
  mul(P, s1, p.y, t);
  mul(P, t, p.z, z1);
  mul(P, s2, q.y, t);
  sub(P, h, u2, u1);
  sub(P, r, s2, s1);
  if (zero(h) && zero(r)) return twice(p);
  mul(P, t, p.z, q.z);
  mul(P, p.z, t, h);  // h = 0: opposite points, and z becomes 0
  squared(P, z1, h);
  mul(P, z2, z1, h);
  mul(P, u1, u1, z1);
  squared(P, p.x, r);
  sub(P, p.x, p.x, z2);
  sub(P, p.x, p.x, u1);
  sub(P, p.x, p.x, u1);
  sub(P, t, u1, p.x);
  mul(P, t, r, t);
  mul(P, s1, s1, z2);
  sub(P, p.y, t, s1);
}

bool on_curve(const Point& p) {  // y^2 = x^3 - 3x + b
  Num left, right, t;
  squared(P, left, p.y);
  squared(P, right, p.x);
  mul(P, right, right, p.x);
  add(P, t, p.x, p.x);
  add(P, t, t, p.x);
  sub(P, right, right, t);
  add(P, right, right, B);
  return equal(left, right, sizeof left);
}

int bit(const Num a, int k) { return static_cast<int>(a[k / 32] >> (k & 31) & 1); }

void inverted(Num to, const Num a) {  // a^(n - 2), both in Montgomery form
  Num x;
  set(x, N.one);
  for (int k = 255; k >= 0; k--) {
    squared(N, x, x);
    if (bit(N_MINUS_2, k)) mul(N, x, x, a);
  }
  set(to, x);
}

// x of the sum as the affine x, compared with r without a division: x = r z^2.
bool is_x(const Point& sum, const Num r) {
  Num wanted, z;
  squared(P, z, sum.z);
  mul(P, wanted, r, P.square);
  mul(P, wanted, wanted, z);
  return equal(wanted, sum.x, sizeof wanted);
}

}  // namespace

bool p256_verify(const uint8_t key[64], const uint8_t digest[32], const uint8_t* signature, uint32_t size) {
  uint8_t r_bytes[32], s_bytes[32];
  if (!der_signature(signature, size, r_bytes, s_bytes)) return false;
  Num r, s, e, u1, u2;
  from_bytes(r, r_bytes);
  from_bytes(s, s_bytes);
  from_bytes(e, digest);
  if (zero(r) || zero(s) || !below(r, N.m) || !below(s, N.m)) return false;
  Point q;
  from_bytes(q.x, key);
  from_bytes(q.y, key + 32);
  if (!below(q.x, P.m) || !below(q.y, P.m)) return false;
  mul(P, q.x, q.x, P.square);
  mul(P, q.y, q.y, P.square);
  set(q.z, P.one);
  if (!on_curve(q)) return false;
  mul(N, s, s, N.square);
  inverted(s, s);
  mul(N, u1, e, s);
  mul(N, u2, r, s);
  Point both = G, sum = {{0}, {0}, {0}};
  plus(both, q);
  for (int k = 255; k >= 0; k--) {
    twice(sum);
    const int which = bit(u1, k) | bit(u2, k) << 1;
    if (which) plus(sum, which == 1 ? G : which == 2 ? q : both);
  }
  if (zero(sum.z)) return false;
  if (is_x(sum, r)) return true;
  if (!below(r, P_MINUS_N)) return false;
  add_raw(r, r, N.m);
  return is_x(sum, r);
}

}  // namespace skylift
#endif
