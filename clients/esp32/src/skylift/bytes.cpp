#include "bytes.hpp"

namespace skylift {

bool Text::is(Text other) const { return size == other.size && equal(at, other.at, size); }
bool Text::is(const char* other) const { return is(text(other)); }

Line& Line::put(char c) {
  if (size_ + 1 >= room_) {
    whole_ = false;
    return *this;
  }
  to_[size_++] = c;
  to_[size_] = 0;
  return *this;
}

Line& Line::put(Text some) {
  for (uint32_t k = 0; k < some.size; k++) put(some.at[k]);
  return *this;
}

Line& Line::put(const char* chars) { return put(text(chars)); }

Line& Line::number(uint32_t value) {
  char digits[10];
  uint32_t n = 0;
  do {
    digits[n++] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value);
  while (n) put(digits[--n]);
  return *this;
}

Line& Line::hex(const uint8_t* bytes, uint32_t n) {
  for (uint32_t k = 0; k < n; k++) put("0123456789abcdef"[bytes[k] >> 4]).put("0123456789abcdef"[bytes[k] & 15]);
  return *this;
}

Line& Line::quoted(const char* chars) {
  put('"');
  for (; *chars; chars++) {
    const char c = *chars;
    if (c == '"' || c == '\\') put('\\');
    put(c < ' ' || c > '~' ? ' ' : c);
  }
  return put('"');
}

Line& Line::escaped(const char* chars) {
  for (; *chars; chars++) {
    const char c = *chars;
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                       c == '-' || c == '_' || c == '~';
    const uint8_t byte = static_cast<uint8_t>(c);
    if (plain)
      put(c);
    else
      put('%').hex(&byte, 1);
  }
  return *this;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool from_hex(Text some, uint8_t* to, uint32_t n) {
  if (some.size != 2 * n) return false;
  for (uint32_t k = 0; k < n; k++) {
    const int high = hex_digit(some.at[2 * k]), low = hex_digit(some.at[2 * k + 1]);
    if (high < 0 || low < 0) return false;
    to[k] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

bool from_decimal(Text some, uint32_t most, uint32_t* value) {
  uint32_t found = 0;
  bool good = some.size != 0;
  for (uint32_t k = 0; k < some.size && good; k++) {
    const uint32_t digit = static_cast<uint8_t>(some.at[k]) - uint32_t{'0'};
    good = digit < 10 && found <= (UINT32_MAX - 9) / 10;
    found = found * 10 + digit;
  }
  good = good && found <= most;
  *value = good ? found : 0;
  return good;
}

bool keep(Text some, char* to, uint32_t room) {
  to[0] = 0;
  if (some.size >= room) return false;
  copy(to, some.at, some.size);
  to[some.size] = 0;
  return true;
}

void keep_words(const char* some, char* to, uint32_t room) {
  Line(to, room).put(some);
}

uint32_t crc32(const void* data, uint32_t n) {
  const uint8_t* p = static_cast<const uint8_t*>(data);
  uint32_t crc = 0xFFFFFFFFu;
  while (n--) {
    crc ^= *p++;
    for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

}  // namespace skylift
