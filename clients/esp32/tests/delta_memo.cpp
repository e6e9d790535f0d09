// The delta decoder with a memory, for proofs of a million lives: what it made of a patch once, it makes again without
// the sums. Linked with `--wrap=sd_apply`. It reads what the decoder read and writes what it wrote, in the same order; where
// base or patch are not the remembered ones, the decoder itself runs, or all of it ends.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <list>
#include <string>
#include <vector>

extern "C" {
#include "skydelta.h"
int __real_sd_apply(const uint8_t* base, uint32_t base_size, const sd_io* io, void* memory, size_t room, uint32_t most);
int __wrap_sd_apply(const uint8_t* base, uint32_t base_size, const sd_io* io, void* memory, size_t room, uint32_t most);
}

namespace {

struct Deed {
  bool reads;
  std::string bytes;
};
struct Run {
  std::string base;
  uint32_t most;
  const sd_io* io;
  std::vector<Deed> deeds;
  uint32_t written = 0;
};
std::list<Run> known;  // whole ones: whoever has the image does not wait for the decoder to look back at it

size_t read(void* self, uint8_t* to, size_t room) {
  Run& run = *static_cast<Run*>(self);
  const size_t n = run.io->read(run.io->user, to, room);
  run.deeds.push_back({true, {reinterpret_cast<const char*>(to), n}});
  return n;
}

int write(void* self, const uint8_t* from, size_t n) {
  Run& run = *static_cast<Run*>(self);
  run.deeds.push_back({false, {reinterpret_cast<const char*>(from), n}});
  run.written += static_cast<uint32_t>(n);
  if (run.written == run.most) known.push_back(run);
  return run.io->write(run.io->user, from, n);
}

void again(const Deed& deed, const sd_io& io) {
  if (!deed.reads) {
    if (io.write(io.user, reinterpret_cast<const uint8_t*>(deed.bytes.data()), deed.bytes.size())) std::abort();
    return;
  }
  uint8_t some[512];
  size_t at = 0;
  do {  // pieces may be others than they were
    const size_t left = deed.bytes.size() - at;
    const size_t n = io.read(io.user, some, left < sizeof some ? left : sizeof some);
    if ((!n && left) || std::memcmp(some, deed.bytes.data() + at, n)) std::abort();
    at += n;
  } while (at < deed.bytes.size());
}

}  // namespace

int __wrap_sd_apply(const uint8_t* base, uint32_t base_size, const sd_io* io, void* memory, size_t room, uint32_t most) {
  for (const Run& run : known) {
    if (run.base.size() != base_size || run.most != most || std::memcmp(run.base.data(), base, base_size)) continue;
    for (const Deed& deed : run.deeds) again(deed, *io);
    std::abort();  // somebody did wait
  }
  Run run = {{reinterpret_cast<const char*>(base), base_size}, most, io, {}};
  const sd_io through = {read, write, &run, io->base_checked};
  return __real_sd_apply(base, base_size, &through, memory, room, most);
}
