#include "slot.hpp"

namespace skylift {

void SlotWriter::begin(Port& port, uint8_t slot, uint32_t at, bool from_start) {
  port_ = &port;
  slot_ = slot;
  written_ = at;
  taken_ = from_start ? 0 : at;
  have_ = 0;
}

bool SlotWriter::flush() {
  if (!(written_ & (SECTOR - 1)) && !port_->erase(slot_, written_)) return false;
  if (!port_->write(slot_, written_, page_, PAGE)) return false;
  written_ += PAGE;
  have_ = 0;
  return true;
}

bool SlotWriter::add(const uint8_t* from, uint32_t n) {
  if (taken_ < written_ && !have_) {  // stands already
    const uint32_t over = written_ - taken_ < n ? written_ - taken_ : n;
    taken_ += over;
    from += over;
    n -= over;
  }
  while (n) {
    const uint32_t part = PAGE - have_ < n ? PAGE - have_ : n;
    copy(page_ + have_, from, part);
    have_ += part;
    taken_ += part;
    from += part;
    n -= part;
    if (have_ == PAGE && !flush()) return false;
  }
  return true;
}

bool SlotWriter::finish() {
  if (!have_) return true;
  fill(page_ + have_, 0xFF, PAGE - have_);
  return flush();
}

}  // namespace skylift
