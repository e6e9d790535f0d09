// Writing an image into the idle slot, front to back: each sector is erased when it is reached, whole pages are
// written, nothing is written twice.
#pragma once
#include "port.hpp"

namespace skylift {

constexpr uint32_t PAGE = 1024;

class SlotWriter {  // all zero until it begins
 public:
  // Goes on at `at`, a sector's begin; what lies before it stands already. With `from_start` the bytes before it
  // come once more (a delta is always rebuilt from its beginning) and are passed over.
  void begin(Port& port, uint8_t slot, uint32_t at, bool from_start);
  bool add(const uint8_t* from, uint32_t n);
  bool finish();                        // the last page, filled up
  uint32_t taken() const { return taken_; }  // bytes, of the image
  uint32_t safe() const { return written_ & ~(SECTOR - 1); }  // where another life may go on
  const uint8_t* first() const { return page_; }

 private:
  bool flush();
  Port* port_;
  uint8_t slot_;
  uint32_t taken_, written_;
  uint8_t page_[PAGE];
  uint32_t have_;
};

}  // namespace skylift
