// What the chapters of the fuzzer share.
//
// SKYLIFT_PARSER names the parser, SKYLIFT_SCENE the folder of the testkit's scene. The first byte of an input says in what
// pieces the rest of it comes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "skylift/bytes.hpp"

namespace fuzz {

// How inputs of a parser are mended after bytes of them were changed, so that more than its door is tried.
enum class Mend { NONE, JSON, DELTA };

struct Input {
  skylift::Text text;  // on the heap, exactly its size: a step beyond it is seen
  uint32_t piece;      // bytes that come at a time, 1 to 256
  const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(text.at); }
};

struct Parser {
  const char* name;
  void (*read)(const Input& input);
  Mend mend;
};
extern const Parser* chosen;

// While it is on, a signature that these keys made of anything in the scene counts as theirs of whatever it stands under:
// changed files get as far as those of somebody who has the keys. Off: P-256 itself, which remembers what held.
extern bool keys_are_stolen;

}  // namespace fuzz
