// One device, some boots, and a server in memory that does what no real one would.
#pragma once
#include <functional>

#include "check.hpp"
#include "../cuts.hpp"

using namespace skylift;

struct World {
  desk::Answers answers;
  std::string old_image, new_image, image_root, director_root, folder;
  std::string id, type, product, old_version, new_version;
  uint32_t now = 0;
};
extern World world;

class StoryHooks final : public Hooks {
 public:
  Verdict sensors() override { return sensors_say; }
  Verdict mqtt() override { return mqtt_says; }
  bool battery_is_good() override { return battery; }
  bool may_restart() override { return ready || !--patience; }
  Verdict sensors_say = Verdict::PASS, mqtt_says = Verdict::PASS;
  bool battery = true, ready = true;
  int patience = 3;
};

// One device, some boots, until it rests at the server's pace (or `most` steps).
struct Story {
  desk::Answers answers = world.answers;
  desk::Flash flash{160 << 10};
  desk::BootLoader loader{flash};
  StoryHooks hooks;
  Config config;
  std::string version;
  std::vector<std::string> reports;
  uint32_t now = world.now;
  int boots = 0;
  bool has_fiber = true;
  uint32_t polls = 3;
  Hooks* own_hooks = nullptr;
  std::function<void(desk::MemoryPort&, Client&)> each;  // at every step
  std::string words;      // of the last fault
  Reason reason = Reason::NONE;

  Story() {
    loader.provision(world.old_image);
    config.device_id = world.id.c_str();
    config.device_type = world.type.c_str();
    config.product = world.product.c_str();
    config.token = "t";
    config.image_root = as_text(world.image_root);
    config.director_root = as_text(world.director_root);
    config.trial_seconds = 30;
  }
  static Text as_text(const std::string& some) { return {some.data(), static_cast<uint32_t>(some.size())}; }

  // True when it came to rest.
  bool run(uint32_t most = 60000) {
    while (boots++ < 12) {
      const int slot = loader.boot();
      if (slot < 0) return false;
      const desk::AppDescription app = desk::described(flash.at(flash.slot(slot)));
      version = app.version;
      config.version = version.c_str();
      desk::MemoryPort* port = new desk::MemoryPort(flash, loader, answers);
      Client* client = new Client(*port, own_hooks ? *own_hooks : hooks);
      port->when = now;
      port->has_fiber = has_fiber;
      client->begin(config);
      uint32_t rests = 0, k = 0;
      for (State before = State::HALT; k < most && !port->wants_restart; k++) {
        if (each) each(*port, *client);
        port->pass(client->step());
        if (client->fault()) reason = client->fault().reason, words = client->fault().words;
        if (client->state() == State::REST && before != State::REST && ++rests == polls && !loader.pending()) break;
        before = client->state();
      }
      reports.insert(reports.end(), port->reports.begin(), port->reports.end());
      const bool again = port->wants_restart;
      client->finish();
      delete client;
      delete port;
      if (!again) return k < most;
    }
    return false;
  }
  bool untouched() const { return version == world.old_version && loader.running() == 0 && !std::memcmp(flash.at(flash.slot(0)), world.old_image.data(), world.old_image.size()); }
  bool failed(Reason why, const char* said) {
    const bool good = run() && reports == std::vector<std::string>{"failed"} && reason == why && words.find(said) != std::string::npos && untouched();
    if (!good) std::printf("  reports %zu %s, reason %s, words '%s', version %s\n", reports.size(), reports.empty() ? "" : reports[0].c_str(), name_of(reason), words.c_str(), version.c_str());
    return good;
  }
  bool updated() { return run() && reports == std::vector<std::string>{"complete"} && version == world.new_version; }
  std::string& file(const char* part) {
    for (auto& [path, body] : answers.files)
      if (path.find(part) != std::string::npos) return body;
    std::abort();
  }
  void edit(std::string& where, const std::string& from, const std::string& to) {
    const size_t at = where.find(from);
    if (at == std::string::npos) std::abort();
    where.replace(at, from.size(), to);
  }
};

inline std::string image_path() {
  for (const auto& [path, body] : world.answers.files)
    if (body == world.new_image) return path;
  std::abort();
}
