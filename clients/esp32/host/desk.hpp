// The host's port: the chip on the desk, its clock, its chance, and (in the program) the network of the machine.
#pragma once
#include <ucontext.h>

#include <map>

#include "chip.hpp"

namespace desk {

class HostFiber : public skylift::Fiber {
 public:
  bool start(void (*deed)(void*), void* with) override;
  void resume() override;
  void yield() override;
  void stop() override {}
  uint32_t deepest() const;  // bytes of its stack that were ever used

 private:
  static void enter(unsigned high, unsigned low);
  ucontext_t inside_, outside_;
  void (*deed_)(void*) = nullptr;
  void* with_ = nullptr;
  alignas(16) uint8_t stack_[256 << 10];
};

// Flash, boot control and the key-value store; HTTP is left to those who derive.
class DeskPort : public skylift::Port {
 public:
  DeskPort(Flash& flash, BootLoader& loader) : flash_(flash), loader_(loader) {}
  uint32_t slot_size(uint8_t) override { return flash_.slot_size(); }
  bool erase(uint8_t slot, uint32_t at) override;
  bool write(uint8_t slot, uint32_t at, const uint8_t* from, uint32_t n) override;
  bool read(uint8_t slot, uint32_t at, uint8_t* to, uint32_t n) override;
  const uint8_t* map(uint8_t slot, uint32_t n) override;
  skylift::Fiber* fiber() override { return has_fiber ? &fiber_ : nullptr; }
  uint8_t running() override { return static_cast<uint8_t>(loader_.running()); }
  bool set_boot(uint8_t slot) override { return loader_.set_boot(slot); }
  bool pending_verify() override { return loader_.pending(); }
  bool mark_valid() override { return loader_.mark(Ota::VALID); }
  void mark_invalid_and_reboot() override;
  void restart() override { wants_restart = true; }
  int get(const char* key, void* to, uint32_t room) override;
  bool put(const char* key, const void* from, uint32_t n) override;
  HostFiber& own_fiber() { return fiber_; }

  bool wants_restart = false, has_fiber = true;

 protected:
  Flash& flash_;

 private:
  int place_of(const char* key) const;
  BootLoader& loader_;
  HostFiber fiber_;
};

}  // namespace desk
