#include "desk.hpp"

#include <cstring>

namespace desk {

// --- the second stack --------------------------------------------------------------------------------------------------

void HostFiber::enter(unsigned high, unsigned low) {
  HostFiber* me = reinterpret_cast<HostFiber*>(static_cast<uintptr_t>(high) << 32 | low);
  me->deed_(me->with_);
}

bool HostFiber::start(void (*deed)(void*), void* with) {
  std::memset(stack_, 0xA5, sizeof stack_);
  deed_ = deed;
  with_ = with;
  getcontext(&inside_);
  inside_.uc_stack.ss_sp = stack_;
  inside_.uc_stack.ss_size = sizeof stack_;
  inside_.uc_link = &outside_;
  const uintptr_t me = reinterpret_cast<uintptr_t>(this);
  makecontext(&inside_, reinterpret_cast<void (*)()>(enter), 2, static_cast<unsigned>(me >> 32), static_cast<unsigned>(me));
  return true;
}

void HostFiber::resume() { swapcontext(&outside_, &inside_); }
void HostFiber::yield() { swapcontext(&inside_, &outside_); }

uint32_t HostFiber::deepest() const {
  uint32_t untouched = 0;
  while (untouched < sizeof stack_ && stack_[untouched] == 0xA5) untouched++;
  return static_cast<uint32_t>(sizeof stack_) - untouched;
}

// --- flash -------------------------------------------------------------------------------------------------------------------

bool DeskPort::erase(uint8_t slot, uint32_t at) {
  if (flash_.broken || at + SECTOR > flash_.slot_size() || slot == running()) return false;
  flash_.erase(flash_.slot(slot) + at);
  return true;
}

bool DeskPort::write(uint8_t slot, uint32_t at, const uint8_t* from, uint32_t n) {
  if (flash_.broken || at + n > flash_.slot_size() || slot == running()) return false;
  flash_.write(flash_.slot(slot) + at, from, n);
  return true;
}

bool DeskPort::read(uint8_t slot, uint32_t at, uint8_t* to, uint32_t n) {
  if (at + n > flash_.slot_size()) return false;
  std::memcpy(to, flash_.at(flash_.slot(slot) + at), n);
  return true;
}

const uint8_t* DeskPort::map(uint8_t slot, uint32_t n) {
  return n <= flash_.slot_size() ? flash_.at(flash_.slot(slot)) : nullptr;
}

void DeskPort::mark_invalid_and_reboot() {
  loader_.mark(Ota::INVALID);
  wants_restart = true;
}

// --- the key-value store: a sector a record: name, size, bytes. Erased, then written: a cut between loses it --------------------

int DeskPort::place_of(const char* key) const {
  for (uint32_t k = 0; k < KEYS; k++) {
    const char* name = reinterpret_cast<const char*>(flash_.at((2 + k) * SECTOR));
    if (!std::strncmp(name, key, 16)) return static_cast<int>(k);
  }
  return -1;
}

int DeskPort::get(const char* key, void* to, uint32_t room) {
  const int place = place_of(key);
  if (place < 0) return -1;
  const uint8_t* at = flash_.at((2 + static_cast<uint32_t>(place)) * SECTOR);
  uint32_t n;
  std::memcpy(&n, at + 16, 4);
  if (n > room || n > SECTOR - 20) return -1;
  std::memcpy(to, at + 20, n);
  return static_cast<int>(n);
}

bool DeskPort::put(const char* key, const void* from, uint32_t n) {
  if (flash_.worn || n > SECTOR - 20) return false;
  int place = place_of(key);
  if (place < 0) {  // a record has its place for ever, by its name
    static const char* const NAMES[KEYS] = {"sky.journala", "sky.journalb", "sky.offseta", "sky.offsetb",
                                            "sky.factsa", "sky.factsb", "sky.keysa", "sky.keysb"};
    for (uint32_t k = 0; k < KEYS; k++)
      if (!std::strcmp(NAMES[k], key)) place = static_cast<int>(k);
  }
  if (place < 0) return false;
  const uint32_t at = (2 + static_cast<uint32_t>(place)) * SECTOR;
  uint8_t record[SECTOR];
  std::memset(record, 0, 20);
  std::strncpy(reinterpret_cast<char*>(record), key, 15);
  std::memcpy(record + 16, &n, 4);
  std::memcpy(record + 20, from, n);
  flash_.erase(at);
  flash_.write(at, record, 20 + n);
  return true;
}

}  // namespace desk
