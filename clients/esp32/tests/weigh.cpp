// One update of a usual image: what it writes to flash, whether anything is allocated after `begin`, how deep the
// delta decoder's stack goes. usage: weigh FOLDER; prints one JSON object.
#include <cstdlib>
#include <new>

#include "cuts.hpp"

static bool counting;
static unsigned long allocations;

// Everything that C++ allocates; the core knows no other way (no malloc in it: its objects refer to none).
__attribute__((noinline)) void* operator new(std::size_t n) {
  allocations += counting;
  void* found = std::malloc(n);
  if (!found) std::abort();
  return found;
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, std::size_t) noexcept { std::free(p); }

using namespace skylift;

namespace {

class WeighHooks final : public Hooks {};

struct Weighed {
  unsigned long heap = 0;
  uint32_t stack = 0;
  uint64_t written = 0;
  bool updated = false;
};

Weighed update(const std::string& folder, const char* check) {
  desk::Answers answers;
  std::string id, type, product, old_version, new_version;
  uint32_t now = 0;
  std::ifstream about(folder + "/words");
  about >> id >> type >> product >> old_version >> new_version >> now;
  std::ifstream list(folder + "/list");
  for (std::string path, file; list >> path >> file;) answers.files[path] = desk::contents(folder + "/" + file);
  answers.check = desk::contents(folder + "/" + check);
  answers.image_version = new_version;
  const std::string image_root = desk::contents(folder + "/image.root"), director_root = desk::contents(folder + "/director.root");
  desk::Flash* flash = new desk::Flash(2u << 20);
  desk::BootLoader loader(*flash);
  loader.provision(desk::contents(folder + "/old.bin"));
  flash->counters = desk::Counters();
  Weighed found;
  WeighHooks hooks;
  for (int boots = 0; boots < 2; boots++) {
    const int slot = loader.boot();
    const std::string version = desk::described(flash->at(flash->slot(slot))).version;
    desk::MemoryPort* port = new desk::MemoryPort(*flash, loader, answers);
    Client* client = new Client(*port, hooks);
    port->when = now;
    Config config;
    config.device_id = id.c_str();
    config.device_type = type.c_str();
    config.product = product.c_str();
    config.version = version.c_str();
    config.token = "t";
    config.image_root = {image_root.data(), static_cast<uint32_t>(image_root.size())};
    config.director_root = {director_root.data(), static_cast<uint32_t>(director_root.size())};
    client->begin(config);
    State before = State::HALT;
    while (!port->wants_restart && !(before == State::REST && !loader.pending())) {
      // The server in memory allocates its answers; so the count is taken around each step but where it is asked.
      port->counts = &counting;
      counting = true;
      client->step();
      counting = false;
      before = client->state();
    }
    found.stack = port->own_fiber().deepest() > found.stack ? port->own_fiber().deepest() : found.stack;
    found.updated = version == new_version;
    client->finish();
    delete client;
    delete port;
  }
  found.heap = allocations;
  found.written = flash->counters.written;
  delete flash;
  return found;
}

}  // namespace

int main(int words, char** word) {
  if (words < 2) return 2;
  const std::string folder = word[1];
  const Weighed whole = update(folder, "check.json"), by_delta = update(folder, "check-delta.json");
  if (!whole.updated || !by_delta.updated) {
    std::printf("it did not update\n");
    return 1;
  }
  std::printf("{\"heap_after_begin\": %lu, \"stack\": %u, \"written\": %llu, \"image\": %zu}\n", by_delta.heap, by_delta.stack,
              static_cast<unsigned long long>(whole.written), desk::contents(folder + "/new.bin").size());
  return 0;
}
