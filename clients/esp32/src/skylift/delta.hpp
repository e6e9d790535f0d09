// A delta, applied while it comes in: the decoder of native/ on a stack of its own, fed a buffer at a time.
#pragma once
#include "port.hpp"
#include "reasons.hpp"

namespace skylift {

constexpr uint32_t DELTA_MEMORY = 16u << 10;  // what the profile `mcu-16k` promises

class DeltaRun {  // all zero until it begins
 public:
  enum class Want : uint8_t { INPUT, OUTPUT, DONE, FAILED };

  // `memory`: DELTA_MEMORY bytes. `base_sha256`: of the image in `base`; a patch for another one is refused.
  void begin(Fiber& fiber, const uint8_t* base, uint32_t base_size, const uint8_t base_sha256[32], void* memory,
             uint32_t most);
  void feed(const uint8_t* from, uint32_t n);  // when it wants input; n = 0: there is no more
  Want step();                                 // at most 512 bytes of image
  const uint8_t* out() const { return out_; }
  uint32_t out_size() const { return out_size_; }
  const char* why() const;  // FAILED: "memory", "base" (it is for another one) or "broken"
  void end();

 private:
  static void run(void* self);
  static size_t read(void* self, uint8_t* to, size_t most);
  static int write(void* self, const uint8_t* from, size_t n);
  bool other_base() const;

  Fiber* fiber_;
  const uint8_t *base_, *base_sha256_, *in_, *out_;
  uint32_t base_size_, most_, in_size_, out_size_;
  void* memory_;
  uint8_t head_[66];
  uint32_t head_size_;
  int result_;
  bool no_more_, is_running_;
  Want want_;
};

}  // namespace skylift
