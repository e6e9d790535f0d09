// A delta, applied while it comes in: the decoder of native/ on a stack of its own, fed a buffer at a time.
#pragma once
#include "port.hpp"
#include "reasons.hpp"

namespace skylift {

constexpr uint32_t DELTA_MEMORY = 16u << 10;  // what the profile `mcu-16k` promises

class DeltaRun {
 public:
  enum class Want : uint8_t { INPUT, OUTPUT, DONE, FAILED };

  // `memory`: DELTA_MEMORY bytes. `base_sha256`: of the image in `base`; a patch for another one is refused.
  void begin(Fiber& fiber, const uint8_t* base, uint32_t base_size, const uint8_t base_sha256[32], void* memory,
             uint32_t most);
  void feed(const uint8_t* from, uint32_t n);  // when it wants input; n = 0: there is no more
  Want step();                                 // at most 512 bytes of image
  const uint8_t* out() const { return out_; }
  uint32_t out_size() const { return out_size_; }
  const char* why() const;  // FAILED
  void end();

 private:
  static void run(void* self);
  static size_t read(void* self, uint8_t* to, size_t most);
  static int write(void* self, const uint8_t* from, size_t n);
  bool other_base() const;

  Fiber* fiber_ = nullptr;
  const uint8_t *base_ = nullptr, *base_sha256_ = nullptr, *in_ = nullptr, *out_ = nullptr;
  uint32_t base_size_ = 0, most_ = 0, in_size_ = 0, out_size_ = 0;
  void* memory_ = nullptr;
  uint8_t head_[66];
  uint32_t head_size_ = 0;
  int result_ = 0;
  bool no_more_ = false, is_running_ = false;
  Want want_ = Want::INPUT;
};

}  // namespace skylift
