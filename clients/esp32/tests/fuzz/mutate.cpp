// Inputs that are wrong further in: libFuzzer changes bytes, which most often breaks brackets and checksums and is seen at
// the door. Here values of JSON take each other's places, and the header of a delta gets the checksum that fits it.
#include <cstring>
#include <vector>

#include "fuzz.hpp"

extern "C" {
#include "core.h"
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);
}

namespace {

struct Chance {
  uint32_t state;
  uint32_t below(size_t n) {
    state = state * 1664525u + 1013904223u;
    return static_cast<uint32_t>((static_cast<uint64_t>(state) * n) >> 32);
  }
};

struct Span {
  size_t from, size;
};

// Strings with their quotes, and numbers.
std::vector<Span> values(const uint8_t* text, size_t n) {
  std::vector<Span> found;
  for (size_t at = 0; at < n;) {
    const size_t from = at;
    if (text[at] == '"') {
      for (at++; at < n && text[at] != '"'; at++) at += text[at] == '\\';
      at = at < n ? at + 1 : n;
    } else {
      while (at < n && text[at] >= '0' && text[at] <= '9') at++;
    }
    if (at == from)
      at++;
    else
      found.push_back({from, at - from});
  }
  return found;
}

const char* const ODD[] = {"0", "1", "2", "4294967295", "4294967296", "999999999999999", "\"\"", "{}", "[]", "[[]]", "true",
                           "\"\\n\"", "\"2026-02-29T23:59:60Z\"", "\"9999-12-31T23:59:59Z\"", "{\"a\":1}", "\"\\u0000\""};

// What a device has no room for, or hardly.
std::string odd(Chance& chance) {
  if (!chance.below(8)) return '"' + std::string(1 + chance.below(700), static_cast<char>('a' + chance.below(26))) + '"';
  return ODD[chance.below(sizeof ODD / sizeof *ODD)];
}

// One of them: if chance wills, of the same kind, which is as long.
Span one_of(const std::vector<Span>& all, const Span& like, Chance& chance) {
  Span found = all[chance.below(all.size())];
  for (int tries = chance.below(2) ? 16 : 0; tries && found.size != like.size; tries--) found = all[chance.below(all.size())];
  return found;
}

// Other values where one stood, or behind it, as a list has them; 0 where there is none, or no room.
size_t exchanged(uint8_t* text, size_t n, size_t most, Chance& chance) {
  const std::vector<Span> all = values(text, n);
  if (all.empty()) return 0;
  const auto words = [text](Span span) { return std::string(reinterpret_cast<const char*>(text) + span.from, span.size); };
  const Span out = all[chance.below(all.size())];
  std::string with = words(out);
  if (chance.below(3))
    with = chance.below(2) ? odd(chance) : words(one_of(all, out, chance));
  else
    for (uint32_t more = 1 + chance.below(4); more; more--) with += ',' + words(one_of(all, out, chance));
  if (n - out.size + with.size() > most) return 0;
  std::memmove(text + out.from + with.size(), text + out.from + out.size, n - out.from - out.size);
  std::memcpy(text + out.from, with.data(), with.size());
  return n - out.size + with.size();
}

void check_header(uint8_t* patch, size_t n) {
  if (n < SD_HEADER) return;
  const uint32_t sum = sd_crc32(0, patch, SD_HEADER - 4);
  for (int k = 0; k < 4; k++) patch[SD_HEADER - 4 + k] = static_cast<uint8_t>(sum >> 8 * k);
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  Chance chance = {seed};
  if (fuzz::chosen->mend == fuzz::Mend::JSON && size > 1 && chance.below(2))
    if (const size_t n = exchanged(data + 1, size - 1, most - 1, chance)) return n + 1;
  const size_t n = LLVMFuzzerMutate(data, size, most);
  if (fuzz::chosen->mend == fuzz::Mend::DELTA && n > 1 && chance.below(8)) check_header(data + 1, n - 1);
  return n;
}
