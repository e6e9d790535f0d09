#include "delta.hpp"

extern "C" {
#include "skydelta.h"
}

namespace skylift {

void DeltaRun::begin(Fiber& fiber, const uint8_t* base, uint32_t base_size, const uint8_t base_sha256[32],
                     void* memory, uint32_t most) {
  fiber_ = &fiber;
  base_ = base;
  base_size_ = base_size;
  base_sha256_ = base_sha256;
  memory_ = memory;
  most_ = most;
  in_size_ = out_size_ = head_size_ = 0;
  result_ = 0;
  no_more_ = false;
  want_ = Want::INPUT;
  is_running_ = fiber.start(run, this);
  if (!is_running_) want_ = Want::FAILED, result_ = SD_MEMORY;
}

void DeltaRun::end() {
  if (is_running_) fiber_->stop();
  is_running_ = false;
}

void DeltaRun::feed(const uint8_t* from, uint32_t n) {
  in_ = from;
  in_size_ = n;
  no_more_ = !n;
}

DeltaRun::Want DeltaRun::step() {
  if (want_ == Want::INPUT && !in_size_ && !no_more_) return Want::INPUT;
  if (is_running_) fiber_->resume();
  return want_;
}

// On the fiber.
void DeltaRun::run(void* self) {
  DeltaRun& me = *static_cast<DeltaRun*>(self);
  sd_io io = {read, write, self, 1};
  me.result_ = sd_apply(me.base_, me.base_size_, &io, me.memory_, DELTA_MEMORY, me.most_);
  me.want_ = me.result_ ? Want::FAILED : Want::DONE;
  me.is_running_ = false;
}

size_t DeltaRun::read(void* self, uint8_t* to, size_t most) {
  DeltaRun& me = *static_cast<DeltaRun*>(self);
  while (!me.in_size_ && !me.no_more_) {
    me.want_ = Want::INPUT;
    me.fiber_->yield();
  }
  const uint32_t n = me.in_size_ < most ? me.in_size_ : static_cast<uint32_t>(most);
  copy(to, me.in_, n);
  const uint32_t left = sizeof me.head_ - me.head_size_, part = n < left ? n : left;
  copy(me.head_ + me.head_size_, to, part);
  me.head_size_ += part;
  me.in_ += n;
  me.in_size_ -= n;
  return part && me.head_size_ == sizeof me.head_ && me.other_base() ? 0 : n;
}

// By the header's own words: the decoder checks the rest of it.
bool DeltaRun::other_base() const { return equal(head_, "SKD2", 4) && !equal(head_ + 30, base_sha256_, SD_DIGEST); }

int DeltaRun::write(void* self, const uint8_t* from, size_t n) {
  DeltaRun& me = *static_cast<DeltaRun*>(self);
  me.out_ = from;
  me.out_size_ = static_cast<uint32_t>(n);
  me.want_ = Want::OUTPUT;
  me.fiber_->yield();
  return 0;
}

const char* DeltaRun::why() const {
  if (result_ == SD_MEMORY) return "memory";
  return result_ == SD_BASE || (head_size_ == sizeof head_ && other_base()) ? "base" : "broken";
}

}  // namespace skylift
