#include "chip.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "../src/skylift/crypto.hpp"

namespace desk {

Flash::Flash(uint32_t slot_size, const std::string& file) : slot_size_(slot_size), mapped_(!file.empty()) {
  if (mapped_) {
    const int handle = ::open(file.c_str(), O_RDWR | O_CREAT, 0600);
    const off_t before = handle < 0 ? -1 : lseek(handle, 0, SEEK_END);
    if (before < 0 || (before < static_cast<off_t>(size()) && ftruncate(handle, static_cast<off_t>(size())) != 0)) {
      std::perror(file.c_str());
      std::exit(1);
    }
    void* found = mmap(nullptr, size(), PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    ::close(handle);
    if (found == MAP_FAILED) {
      std::perror(file.c_str());
      std::exit(1);
    }
    bytes_ = static_cast<uint8_t*>(found);
    if (before == 0) std::memset(bytes_, 0xFF, size());
  } else {
    bytes_ = static_cast<uint8_t*>(std::malloc(size()));
    std::memset(bytes_, 0xFF, size());
  }
  wear_.assign(size() / SECTOR, 0);
}

Flash::~Flash() {
  if (mapped_)
    munmap(bytes_, size());
  else
    std::free(bytes_);
}

void Flash::restore(const std::vector<uint8_t>& from) { std::memcpy(bytes_, from.data(), size()); }

// How much of this operation is done before the power goes; 4: all of it, and it stays on.
int Flash::quarters(uint32_t where) {
  counters.operations++;
  if (cut.at && counters.operations == cut.at) return cut.part;
  if (!brown_out || (calm && where < slot(0))) return 4;
  seed = seed * 1664525u + 1013904223u;
  return (seed >> 8) % 1000000u < brown_out ? static_cast<int>(seed >> 29) & 3 : 4;
}

uint32_t Flash::tear(uint8_t* bytes, uint32_t where, const uint8_t* from, uint32_t n, int quarters) {
  const uint32_t part = quarters == 4 ? n : n * static_cast<uint32_t>(quarters) / 4;
  if (!from) std::memset(bytes + where, 0xFF, part);
  for (uint32_t k = 0; from && k < part; k++) bytes[where + k] &= from[k];  // bits are cleared, never set
  return part;
}

void Flash::erase(uint32_t where) {
  if (watch) watch->before(where, nullptr, SECTOR);
  const int done = quarters(where);
  wear_[where / SECTOR]++;
  counters.erased += tear(bytes_, where, nullptr, SECTOR, done);
  if (done < 4) std::longjmp(off, 1);
}

void Flash::write(uint32_t where, const void* from, uint32_t n) {
  if (watch) watch->before(where, static_cast<const uint8_t*>(from), n);
  const int done = quarters(where);
  counters.written += tear(bytes_, where, static_cast<const uint8_t*>(from), n, done);
  if (done < 4) std::longjmp(off, 1);
}

uint32_t Flash::worst_wear(uint32_t from, uint32_t to) const {
  uint32_t worst = 0;
  for (uint32_t k = from / SECTOR; k < to / SECTOR; k++) worst = wear_[k] > worst ? wear_[k] : worst;
  return worst;
}

// --- images --------------------------------------------------------------------------------------------------------------

static uint32_t word(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}

uint32_t image_size(const uint8_t* image, uint32_t room) {
  if (room < 64 || image[0] != 0xE9 || !image[1] || image[1] > 16) return 0;
  uint32_t at = 24;
  uint8_t sum = 0xEF;
  for (int k = 0; k < image[1]; k++) {
    if (at + 8 > room || word(image + at + 4) > room - at - 8) return 0;
    const uint32_t n = word(image + at + 4);
    for (uint32_t b = 0; b < n; b++) sum ^= image[at + 8 + b];
    at += 8 + n;
  }
  at = (at | 15) + 1;
  if (at + 32 > room || image[at - 1] != sum) return 0;
  if (image[23] != 1) return at;
  uint8_t digest[32];
  skylift::Sha256 sha;
  sha.begin();
  sha.add(image, at);
  sha.end(digest);
  return std::memcmp(digest, image + at, 32) ? 0 : at + 32;
}

AppDescription described(const uint8_t* image) {
  AppDescription found;
  if (word(image + 32) != 0xABCD5432u) return found;
  found.secure_version = word(image + 36);
  const char* version = reinterpret_cast<const char*>(image + 48);
  const char* project = reinterpret_cast<const char*>(image + 80);
  found.version.assign(version, strnlen(version, 32));
  found.project.assign(project, strnlen(project, 32));
  return found;
}

// --- the boot loader ---------------------------------------------------------------------------------------------------------

static uint32_t sum_of(const OtaEntry& e) {
  const uint32_t fields[2] = {e.seq, e.slot};
  return skylift::crc32(fields, sizeof fields);
}

bool BootLoader::entry(uint32_t sector, OtaEntry& to) const {
  std::memcpy(&to, flash_.at(sector * SECTOR), sizeof to);
  return to.seq != 0xFFFFFFFFu && to.crc == sum_of(to) && to.slot < 2;
}

void BootLoader::put(uint32_t sector, OtaEntry e) {
  e.crc = sum_of(e);
  flash_.erase(sector * SECTOR);
  flash_.write(sector * SECTOR, &e, sizeof e);
}

int BootLoader::find(int slot, OtaEntry& to) const {
  int best = -1;
  for (uint32_t sector = 0; sector < 2; sector++) {
    OtaEntry e;
    if (!entry(sector, e) || static_cast<int>(e.slot) != slot) continue;
    if (best < 0 || e.seq > to.seq) best = static_cast<int>(sector), to = e;
  }
  return best;
}

void BootLoader::provision(const std::string& image) {
  flash_.erase(flash_.slot(0));
  for (uint32_t at = 0; at < image.size(); at += SECTOR) {
    const uint32_t n = static_cast<uint32_t>(image.size() - at < SECTOR ? image.size() - at : SECTOR);
    flash_.erase(flash_.slot(0) + at);
    flash_.write(flash_.slot(0) + at, image.data() + at, n);
  }
  put(0, {1, 0, static_cast<uint32_t>(Ota::VALID), 0});
}

int BootLoader::boot() {
  OtaEntry e[2];
  const bool there[2] = {entry(0, e[0]), entry(1, e[1])};
  const uint32_t first = there[1] && (!there[0] || e[1].seq > e[0].seq) ? 1 : 0;
  for (uint32_t sector : {first, first ^ 1}) {
    if (!there[sector]) continue;
    OtaEntry found = e[sector];
    const Ota state = static_cast<Ota>(found.state);
    if (state == Ota::PENDING) {
      found.state = static_cast<uint32_t>(Ota::ABORTED);
      put(sector, found);
      continue;
    }
    if (state == Ota::INVALID || state == Ota::ABORTED) continue;
    const uint8_t* image = flash_.at(flash_.slot(static_cast<int>(found.slot)));
    if (!believes && !image_size(image, flash_.slot_size())) continue;
    if (state == Ota::NEW) {
      found.state = static_cast<uint32_t>(Ota::PENDING);
      put(sector, found);
    }
    return running_ = static_cast<int>(found.slot);
  }
  // Nothing is said about any: the first that is whole, unless it was found bad.
  for (int slot = 0; slot < 2; slot++) {
    OtaEntry found;
    const bool said_bad = find(slot, found) >= 0 && static_cast<Ota>(found.state) >= Ota::INVALID;
    if (!said_bad && image_size(flash_.at(flash_.slot(slot)), flash_.slot_size())) return running_ = slot;
  }
  return running_ = -1;
}

bool BootLoader::set_boot(int slot) {
  if (!believes && !image_size(flash_.at(flash_.slot(slot)), flash_.slot_size())) return false;
  // The sector that does not hold the running slot's entry: that one must survive.
  OtaEntry own, other;
  const int kept = find(running_, own);
  uint32_t newest = 0;
  for (uint32_t sector = 0; sector < 2; sector++)
    if (entry(sector, other) && other.seq > newest) newest = other.seq;
  const uint32_t sector = kept == 0 ? 1 : 0;
  put(sector, {newest + 1, static_cast<uint32_t>(slot), static_cast<uint32_t>(Ota::NEW), 0});
  return true;
}

bool BootLoader::pending() const {
  OtaEntry e;
  return find(running_, e) >= 0 && static_cast<Ota>(e.state) == Ota::PENDING;
}

bool BootLoader::mark(Ota state) {
  OtaEntry e;
  const int sector = find(running_, e);
  if (sector < 0) return false;
  if (e.state == static_cast<uint32_t>(state)) return true;
  e.state = static_cast<uint32_t>(state);
  put(static_cast<uint32_t>(sector), e);
  return true;
}

}  // namespace desk
