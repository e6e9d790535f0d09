// A chip on a desk: NOR flash that only clears bits and is erased by sectors, a key-value store that tears like it, a
// boot loader with trial boots, and a power plug. The flash is a file (or memory); every operation is counted, and the
// power can be cut at each, also in the middle of a write.
#pragma once
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "../src/skylift/port.hpp"

namespace desk {

using skylift::SECTOR;

constexpr uint32_t KEYS = 8;  // records of the key-value store, a sector each

struct Counters {
  uint64_t operations = 0, written = 0, erased = 0;
};

// How the power is cut: at operation `at` (1 is the first), having done `part` of 4 quarters of it.
struct Cut {
  uint64_t at = 0;
  int part = 0;
};

// Looks on: told of each operation before it is done. `from` is null where a sector is erased.
class Watch {
 public:
  virtual void before(uint32_t where, const uint8_t* from, uint32_t n) = 0;

 protected:
  ~Watch() = default;
};

class Flash {
 public:
  Flash(uint32_t slot_size, const std::string& file = "");
  ~Flash();
  Flash(const Flash&) = delete;
  Flash& operator=(const Flash&) = delete;

  // What an operation leaves of these bytes when so many quarters of it were done.
  static uint32_t tear(uint8_t* bytes, uint32_t where, const uint8_t* from, uint32_t n, int quarters);
  void erase(uint32_t at);  // a sector
  void write(uint32_t at, const void* from, uint32_t n);
  const uint8_t* at(uint32_t where) const { return bytes_ + where; }
  uint32_t slot(int which) const { return (2 + KEYS) * SECTOR + static_cast<uint32_t>(which) * slot_size_; }
  uint32_t slot_size() const { return slot_size_; }
  uint32_t size() const { return slot(2); }
  uint32_t worst_wear(uint32_t from, uint32_t to) const;
  std::vector<uint8_t> copy() const { return {bytes_, bytes_ + size()}; }
  void restore(const std::vector<uint8_t>& from);

  Cut cut;                 // one cut to come
  uint32_t brown_out = 0;  // chance of one at each operation, in a million
  bool calm = false;       // brown-outs only while a slot is written, as its long writes draw most
  uint32_t seed = 1;
  bool broken = false;  // no slot can be written any more
  bool worn = false;    // the key-value store takes nothing any more
  Counters counters;
  Watch* watch = nullptr;
  std::jmp_buf off;  // where the power goes when it is cut

 private:
  int quarters(uint32_t where);
  uint32_t slot_size_;
  uint8_t* bytes_;
  bool mapped_;
  std::vector<uint32_t> wear_;
};

// Boot control as ESP-IDF keeps it: two sectors, the higher number counts, an image on trial is booted once.
enum class Ota : uint32_t { NEW = 0, PENDING = 1, VALID = 2, INVALID = 3, ABORTED = 4 };
struct OtaEntry {
  uint32_t seq, slot, state, crc;
};

class BootLoader {
 public:
  explicit BootLoader(Flash& flash) : flash_(flash) {}
  void provision(const std::string& image);
  int boot();  // the slot that runs now, -1: nothing boots
  int running() const { return running_; }
  bool set_boot(int slot);
  bool pending() const;
  bool mark(Ota state);
  bool believes = false;  // boots what it is told to, whole or not: then the client's own look is all there is

 private:
  bool entry(uint32_t sector, OtaEntry& to) const;
  void put(uint32_t sector, OtaEntry entry);
  int find(int slot, OtaEntry& to) const;  // the newest sector for this slot, -1: none
  Flash& flash_;
  int running_ = -1;
};

// An Espressif image: whole, its checksum and digest right; its size. 0: not one.
uint32_t image_size(const uint8_t* image, uint32_t room);
struct AppDescription {
  uint32_t secure_version = 0;
  std::string version, project;
};
AppDescription described(const uint8_t* image);

}  // namespace desk
