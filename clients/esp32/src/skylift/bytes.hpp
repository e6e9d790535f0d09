// Bytes without a C library: the core includes nothing but <stdint.h> and <stddef.h>.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace skylift {

inline void copy(void* to, const void* from, size_t n) {
  if (n) __builtin_memcpy(to, from, n);  // nothing may come from nowhere
}
inline void fill(void* to, uint8_t with, size_t n) { __builtin_memset(to, with, n); }
// All of it zero: what is plain bytes, and was made to begin so.
template <class Plain>
inline void clear(Plain& what) {
  fill(&what, 0, sizeof what);
}
inline bool equal(const void* a, const void* b, size_t n) { return !n || __builtin_memcmp(a, b, n) == 0; }
inline size_t length(const char* text) { return __builtin_strlen(text); }

// A piece of somebody else's memory.
struct Text {
  const char* at = nullptr;
  uint32_t size = 0;
  bool is(const char* other) const;
  bool is(Text other) const;
  explicit operator bool() const { return at != nullptr; }
};
inline Text text(const char* chars) { return {chars, static_cast<uint32_t>(length(chars))}; }
inline Text text(const unsigned char* bytes, size_t n) { return {reinterpret_cast<const char*>(bytes), static_cast<uint32_t>(n)}; }

// Text that is built in a buffer of fixed size. What does not fit is cut, and `whole` says so.
class Line {
 public:
  Line(char* to, uint32_t room) : to_(to), room_(room) { to_[0] = 0; }
  Line& put(char c);
  Line& put(const char* chars);
  Line& put(Text some);
  Line& number(uint32_t value);  // 32 bits: dividing 64 takes 3 KB of a small chip
  Line& hex(const uint8_t* bytes, uint32_t n);
  Line& quoted(const char* chars);   // as JSON writes a string
  Line& escaped(const char* chars);  // as a URL's query writes a value
  bool whole() const { return whole_; }
  uint32_t size() const { return size_; }
  uint32_t left() const { return room_ - size_; }

 private:
  char* to_;
  uint32_t room_, size_ = 0;
  bool whole_ = true;
};

// -1 where it is no hexadecimal digit. Upper case too: HTTP's chunk sizes may be.
int hex_digit(char c);
// True when `some` is exactly 2n hexadecimal digits.
bool from_hex(Text some, uint8_t* to, uint32_t n);
// A decimal number of at most `most`; false, and 0, for anything else.
bool from_decimal(Text some, uint32_t most, uint32_t* value);
// Copies with a terminating zero; false, and an empty string, where it does not fit.
bool keep(Text some, char* to, uint32_t room);
// As `keep`, but for words that people read: what does not fit is cut.
void keep_words(const char* some, char* to, uint32_t room);
uint32_t crc32(const void* data, uint32_t n);

}  // namespace skylift
