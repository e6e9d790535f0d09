// A virtual ESP32: the client on the desk's chip, in a process. What an image "does" is read from its description: a
// project whose name ends in -crashes never comes up, one that ends in -unhealthy fails its self-tests.
//
// usage: device DIR server=URL device_id=.. device_type=.. product=.. [claim=..] [roots=DIR] [factory=FILE] [mqtt=URL]
//               [log_size=N log_root=HEX] [ca=FILE] [slot_kb=N] [poll=S] [brown_out=PPM] [calm=1] [flaky=PPM] [seed=N] [worn=1] [broken=1]
//               [no_clock=1] [unwell=1] [health=S] [deltas=0] [rollback=1] [quit_at=STATE]
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "../src/skylift/client.hpp"
#include "../src/skylift/http1.hpp"
#include "../src/skylift/mqtt.hpp"
#include "desk.hpp"
#include "socket.hpp"

namespace {

using namespace skylift;

std::map<std::string, std::string> options;
std::string option(const std::string& name, const std::string& otherwise = "") {
  const auto found = options.find(name);
  return found == options.end() ? otherwise : found->second;
}
uint32_t count(const std::string& name, uint32_t otherwise) {
  return static_cast<uint32_t>(std::strtoul(option(name, std::to_string(otherwise)).c_str(), nullptr, 10));
}
std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class DevicePort final : public desk::DeskPort {
 public:
  DevicePort(desk::Flash& flash, desk::BootLoader& loader, Socket& socket, const Server& server)
      : DeskPort(flash, loader), http_(socket, server) {}
  bool http_open(const Ask& ask) override { return http_.open(ask); }
  int http_head(Head& head) override { return http_.head(head); }
  int http_read(uint8_t* to, uint32_t most) override { return http_.read(to, most); }
  void http_close() override { http_.close(); }
  uint32_t millis() override {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint32_t>(now.tv_sec * 1000 + now.tv_nsec / 1000000);
  }
  uint32_t now() override { return option("no_clock").empty() ? static_cast<uint32_t>(::time(nullptr)) : 0; }
  void random(uint8_t* to, uint32_t n) override {
    std::ifstream in("/dev/urandom", std::ios::binary);
    in.read(reinterpret_cast<char*>(to), n);
  }
  void log(const char* sentence) override {
    std::printf("%s\n", sentence);
    std::fflush(stdout);
  }

 private:
  Http1 http_;
};

bool ends(const std::string& name, const char* with) {
  const size_t n = std::strlen(with);
  return name.size() >= n && name.compare(name.size() - n, n, with) == 0;
}

class DeviceHooks final : public Hooks {
 public:
  Verdict sensors() override { return is_good ? Verdict::PASS : Verdict::FAIL; }
  Verdict mqtt() override { return !bell || bell->connected() ? Verdict::PASS : Verdict::WAIT; }
  const char* trial_message() override { return is_good ? "" : "(this image is made so)"; }
  bool healthy() override { return option("unwell") != "1"; }
  void metrics(Metrics& to) override {
    to.add("temperature", -2950, 2);
    to.add("uptime", 7);
  }
  bool is_good = true;
  Doorbell* bell = nullptr;
};

// What runs, for whoever looks: one small file, replaced whole.
void tell(const std::string& home, const desk::AppDescription& app, int slot, bool trial, const desk::Flash& flash) {
  const std::string path = home + "/status.json";
  {
    std::ofstream out(path + ".new");
    out << "{\"version\":\"" << app.version << "\",\"slot\":" << slot << ",\"trial\":" << (trial ? "true" : "false")
        << ",\"operations\":" << flash.counters.operations << ",\"written\":" << flash.counters.written
        << ",\"wear\":{\"ota\":" << flash.worst_wear(0, 2 * SECTOR)
        << ",\"store\":" << flash.worst_wear(2 * SECTOR, flash.slot(0))
        << ",\"slots\":" << flash.worst_wear(flash.slot(0), flash.size()) << "}}\n";
  }
  std::rename((path + ".new").c_str(), path.c_str());
}

const char* const STATES[] = {"halt", "pin", "measure", "enroll", "report", "health", "check", "director_root", "image_root", "delegation",
                              "order", "role", "log", "room", "fetch", "progress", "read_back", "installing", "validating", "arm",
                              "restart", "refuse", "rest", "trial", "finish", "give_up", "roll_back"};
static_assert(sizeof STATES / sizeof *STATES == static_cast<size_t>(State::COUNT), "a state without its name");

struct Desk {
  std::string home, image_root, director_root, claim, id, type, product, version;
  uint8_t log_root[32] = {0};
  desk::Flash flash;
  desk::BootLoader loader{flash};
  desk::HostSocket socket, bell_socket;
  Server server, broker;

  Desk(const std::string& where, uint32_t slot_size) : home(where), flash(slot_size, where + "/flash.bin") {}
};

// One boot: until the image restarts, or dies. False: nothing boots.
bool live(Desk& desk) {
  const int slot = desk.loader.boot();
  if (slot < 0) return false;
  const desk::AppDescription app = desk::described(desk.flash.at(desk.flash.slot(slot)));
  std::printf("boot: slot %d, version %s%s\n", slot, app.version.c_str(), desk.loader.pending() ? ", on trial" : "");
  std::fflush(stdout);
  desk.version = app.version;
  if (ends(app.project, "-crashes")) return true;
  // Of this boot; what a cut of the power left behind is let go first.
  static DevicePort* port = nullptr;
  static Client* client = nullptr;
  delete client;
  delete port;
  port = new DevicePort(desk.flash, desk.loader, desk.socket, desk.server);
  DeviceHooks hooks;
  Doorbell bell(desk.bell_socket, *port);
  hooks.is_good = !ends(app.project, "-unhealthy");
  hooks.bell = desk.broker.port ? &bell : nullptr;
  port->has_fiber = option("deltas", "1") == "1";
  client = new Client(*port, hooks);
  Config config;
  config.device_id = desk.id.c_str();
  config.device_type = desk.type.c_str();
  config.product = desk.product.c_str();
  config.version = desk.version.c_str();
  config.claim = desk.claim.c_str();
  config.image_root = {desk.image_root.data(), static_cast<uint32_t>(desk.image_root.size())};
  config.director_root = {desk.director_root.data(), static_cast<uint32_t>(desk.director_root.size())};
  config.log_size = count("log_size", 0);
  config.log_root = desk.log_root;
  config.security_version = app.secure_version;
  config.poll_seconds = count("poll", 0);
  config.save_every = count("save_every", 65536);
  config.health_seconds = count("health", 500);
  client->begin(config);
  const bool trial = desk.loader.pending();
  tell(desk.home, app, slot, trial, desk.flash);
  bool told = !trial, belled = false;
  while (!port->wants_restart) {
    if (!belled && hooks.bell && client->token()[0]) {
      bell.begin(desk.broker, config.device_id, client->token());
      belled = true;
    }
    uint32_t rest = client->step();
    if (belled) bell.step();
    if (bell.rang()) client->ring();
    if (client->state() == State::REST && option("rollback") == "1") {
      options["rollback"] = "0";
      client->rollback();
    }
    if (!told && !desk.loader.pending()) {
      tell(desk.home, app, slot, false, desk.flash);
      told = true;
    }
    if (option("quit_at") == STATES[static_cast<int>(client->state())]) std::exit(0);
    if (rest > 20) rest = 20;
    if (rest) usleep(rest * 1000);
  }
  bell.end();
  client->finish();
  return true;
}

}  // namespace

int main(int words, char** word) {
  if (words < 2) {
    std::fputs("usage: device DIR server=URL device_id=ID device_type=TYPE product=NAME ...\n", stderr);
    return 2;
  }
  for (int k = 2; k < words; k++) {
    const std::string pair = word[k];
    options[pair.substr(0, pair.find('='))] = pair.substr(pair.find('=') + 1);
  }
  static Desk desk(word[1], count("slot_kb", 512) * 1024);
  if (!server_of(option("server").c_str(), desk.server)) {
    std::fprintf(stderr, "server is '%s': must be http://HOST:PORT or https://HOST:PORT\n", option("server").c_str());
    return 2;
  }
  std::string broker = option("mqtt");
  if (broker.compare(0, 7, "mqtt://") == 0) broker = "http://" + broker.substr(7);
  if (broker.compare(0, 8, "mqtts://") == 0) broker = "https://" + broker.substr(8);
  if (!broker.empty() && !server_of(broker.c_str(), desk.broker)) {
    std::fprintf(stderr, "mqtt is '%s': must be mqtt://HOST:PORT\n", option("mqtt").c_str());
    return 2;
  }
  desk.image_root = contents(option("roots") + "/image.root.json");
  desk.director_root = contents(option("roots") + "/director.root.json");
  from_hex(text(option("log_root").c_str()), desk.log_root, sizeof desk.log_root);
  desk.claim = option("claim");
  desk.id = option("device_id");
  desk.type = option("device_type");
  desk.product = option("product");
  desk.socket.ca_file = desk.bell_socket.ca_file = option("ca");
  desk.socket.flaky = count("flaky", 0);
  desk.flash.seed = desk.socket.seed = count("seed", 1);
  if (!option("factory").empty() && !desk::image_size(desk.flash.at(desk.flash.slot(0)), desk.flash.slot_size()))
    desk.loader.provision(contents(option("factory")));
  desk.flash.brown_out = count("brown_out", 0);
  desk.flash.calm = option("calm") == "1";
  desk.flash.worn = option("worn") == "1";
  desk.flash.broken = option("broken") == "1";
  if (setjmp(desk.flash.off)) {
    std::puts("the power went, and is back");
    desk.socket.close();
    desk.bell_socket.close();
  }
  while (live(desk)) {
  }
  std::puts("nothing boots");
  return 3;
}
