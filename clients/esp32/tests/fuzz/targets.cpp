// libFuzzer's door, and every parser of the client that reads from the network.
#include "fuzz.hpp"

#include <cstdlib>
#include <cstring>
#include <memory>

#include "../cuts.hpp"
#include "skylift/crypto.hpp"
#include "skylift/http1.hpp"
#include "skylift/mqtt.hpp"
#include "skylift/trust.hpp"

using namespace skylift;
using fuzz::Input;
using fuzz::Mend;

namespace {

const Device DEVICE = {"dev-1", "sensor-v2", "sensor"};
const Text NONCE_ASKED = text("5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c");  // the scene's
constexpr uint32_t MOST_IMAGE = 4096;  // bytes that a delta may make

// What a device knows that has verified everything of the scene; of the log, the first three entries.
struct Known {
  Keys keys;
  Seen seen;
  Order order;
  Log log;
  std::string base, image_root, director_root;
} known;

std::string scene(const char* name) {
  const char* folder = std::getenv("SKYLIFT_SCENE");
  return desk::contents(std::string(folder ? folder : ".") + "/" + name);
}
Text as_text(const std::string& some) { return {some.data(), static_cast<uint32_t>(some.size())}; }

// --- JSON and signed files ------------------------------------------------------------------------------------------------

void walk(const Json& value, int depth) {
  uint32_t number;
  value.number(UINT32_MAX, &number);
  value.string();
  if (depth > JSON_DEPTH) std::abort();
  for (Members each(value); each.next();) walk(each.value, depth + 1);
}

void json(const Input& input) {
  walk(Json::parse(input.text), 0);
  walk(Json::parse(input.text, true), 0);
}

void order(const Input& input) {
  Fault fault = {};
  Order found;
  read_order(input.text, DEVICE, input.piece & 1 ? NONCE_ASKED : Text(), known.keys, known.seen, 1, found, fault);
}

void role(const Input& input) {
  Fault fault = {};
  Order ordered = known.order;
  read_role(input.text, DEVICE, known.keys, known.seen, 0, 1, ordered, fault);
}

void root(const Input& input) {
  Fault fault = {};
  Keys keys = known.keys;
  Seen seen = known.seen;
  take_root(input.piece & 1 ? Repo::IMAGE : Repo::DIRECTOR, input.text, input.piece & 2, keys, seen, fault);
  take_delegation(input.text, "sensor", 1, keys, seen, fault);
}

void log(const Input& input) {
  Fault fault = {};
  Log from = known.log;
  if (input.piece & 1) from.size = input.piece % 16 / 2;  // from none, from a part of it, from more than there is
  read_proofs(input.text, known.keys, from, known.order, fault);
}

// --- connections ------------------------------------------------------------------------------------------------------------

class Bytes final : public Socket {
 public:
  explicit Bytes(const Input& input) : input_(input) {}
  bool open(const char*, uint16_t, bool) override { return true; }
  int send(const void*, uint32_t n) override { return static_cast<int>(n); }
  int receive(void* to, uint32_t most) override {
    uint32_t n = input_.text.size - at_;
    n = n < most ? n : most;
    n = n < input_.piece ? n : input_.piece;
    if (!n) return END;
    std::memcpy(to, input_.text.at + at_, n);
    at_ += n;
    return static_cast<int>(n);
  }
  void close() override {}

 private:
  const Input& input_;
  uint32_t at_ = 0;
};

class NoPort final : public desk::DeskPort {
 public:
  using DeskPort::DeskPort;
  bool http_open(const Ask& ask) override {
    at_ = 0;
    return answers_all || std::strncmp(ask.path, "/api/updates/check", 18) == 0;
  }
  int http_head(Head& head) override {
    head = Head();
    head.status = 200;
    return 1;
  }
  int http_read(uint8_t* to, uint32_t most) override {
    uint32_t n = body.size - at_;
    if (!n) return END;
    n = n < most ? n : most;
    std::memcpy(to, body.at + at_, n);
    at_ += n;
    return static_cast<int>(n);
  }
  void http_close() override {}
  uint8_t running() override { return 0; }
  uint32_t millis() override { return clock_ += 3; }
  uint32_t now() override { return 0; }
  void random(uint8_t* to, uint32_t n) override { std::memset(to, 1, n); }
  void log(const char*) override {}
  Text body;
  bool answers_all = false;

 private:
  uint32_t at_ = 0, clock_ = 0;
};

class NoHooks final : public Hooks {};

struct Desk {
  desk::Flash flash{desk::SECTOR};
  desk::BootLoader loader{flash};
  NoPort port{flash, loader};
};

void http(const Input& input) {
  Bytes socket(input);
  Server server;
  server_of("http://h", server);
  Http1 http(socket, server);
  const Ask ask = {"GET", "/", "", nullptr, 0, nullptr};
  Head head;
  uint8_t some[64];
  if (http.open(ask) && http.head(head) == 1)
    while (http.read(some, sizeof some) > 0) {
    }
}

void mqtt(const Input& input) {
  static Desk desk;
  Bytes socket(input);
  Server server;
  server_of("http://h", server);
  Doorbell bell(socket, desk.port);
  bell.begin(server, "dev", "tok");
  const uint32_t piece = input.piece < 64 ? input.piece : 64;  // it takes no more at a time
  for (uint32_t k = 0; k < input.text.size / piece + 8; k++) bell.step();
}

// The bytes of a client that is about to check: each input begins there.
std::string ready(Client& client) {
  Config config;
  config.device_id = DEVICE.device_id;
  config.token = "t";
  config.product = DEVICE.product;
  config.health_seconds = 0;
  config.image_root = as_text(known.image_root);
  config.director_root = as_text(known.director_root);
  client.begin(config);
  while (client.state() != State::CHECK) client.step();
  return {reinterpret_cast<const char*>(&client), sizeof client};
}

void check(const Input& input) {
  static Desk desk;
  static NoHooks hooks;
  static Client client(desk.port, hooks);
  static const std::string before = ready(client);
  std::memcpy(static_cast<void*>(&client), before.data(), before.size());
  desk.port.body = input.text;
  desk.port.answers_all = input.piece & 1;  // else what follows the check finds nobody
  for (int k = 0; k < 80 && client.state() != State::REST; k++) client.step();
  client.finish();
}

// --- bytes --------------------------------------------------------------------------------------------------------------------

// 64 bytes of a key, then the signature: of an `x`.
void p256(const Input& input) {
  uint8_t key[64] = {1}, digest[32];
  Sha256 sha;
  sha.begin();
  sha.add("x", 1);
  sha.end(digest);
  const uint32_t skip = input.text.size > 64 ? 64 : 0;
  std::memcpy(key, input.text.at, skip);
  fuzz::keys_are_stolen = false;
  p256_verify(key, digest, input.bytes() + skip, input.text.size - skip);
}

void delta(const Input& input) {
  static desk::HostFiber fiber;
  static uint64_t memory[DELTA_MEMORY / 8];
  uint8_t digest[32] = {0};
  if (input.text.size > 46) std::memcpy(digest, input.text.at + 30, 16);  // whatever base it says: the one there is
  DeltaRun delta;
  delta.begin(fiber, reinterpret_cast<const uint8_t*>(known.base.data()), static_cast<uint32_t>(known.base.size()), digest, memory,
              MOST_IMAGE);
  uint32_t at = 0, made = 0;
  for (;;) {
    const DeltaRun::Want want = delta.step();
    if (want == DeltaRun::Want::DONE || want == DeltaRun::Want::FAILED) break;
    if (want == DeltaRun::Want::OUTPUT && (made += delta.out_size()) > MOST_IMAGE) std::abort();
    if (want != DeltaRun::Want::INPUT) continue;
    const uint32_t n = input.text.size - at < input.piece ? input.text.size - at : input.piece;
    delta.feed(input.bytes() + at, n);
    at += n;
  }
  delta.why();
  delta.end();
}

const fuzz::Parser PARSERS[] = {
    {"json", json, Mend::JSON},   {"order", order, Mend::JSON}, {"role", role, Mend::JSON},   {"root", root, Mend::JSON},
    {"http", http, Mend::NONE},   {"mqtt", mqtt, Mend::NONE},   {"p256", p256, Mend::NONE},   {"check", check, Mend::JSON},
    {"delta", delta, Mend::DELTA}, {"log", log, Mend::JSON},
};

}  // namespace

const fuzz::Parser* fuzz::chosen = nullptr;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char* name = std::getenv("SKYLIFT_PARSER");
  for (const fuzz::Parser& each : PARSERS)
    if (name && !std::strcmp(each.name, name)) fuzz::chosen = &each;
  if (!fuzz::chosen) std::abort();
  known.image_root = scene("image.root");
  known.director_root = scene("director.root");
  known.base = scene("old.bin");
  const std::string pinned = scene("pinned.root");
  std::memcpy(known.log.root, pinned.data(), pinned.size() < 32 ? pinned.size() : 32);
  known.log.size = 3;
  Fault fault = {};
  const auto roots = [&fault](Repo repo, const std::string& first, const std::string& next) {
    take_root(repo, as_text(first), true, known.keys, known.seen, fault);
    Keys later = known.keys;
    Seen seen = known.seen;
    take_root(repo, as_text(next), false, later, seen, fault);  // so that its signatures are known
  };
  roots(Repo::IMAGE, known.image_root, scene("image!2.root.json"));
  roots(Repo::DIRECTOR, known.director_root, scene("director!dev-1!2.root.json"));
  take_delegation(as_text(scene("image!1.targets.json")), DEVICE.product, 0, known.keys, known.seen, fault);
  read_order(as_text(scene("director!dev-1!order.json")), DEVICE, NONCE_ASKED, known.keys, known.seen, 1, known.order, fault);
  read_role(as_text(scene("image!2.sensor.json")), DEVICE, known.keys, known.seen, 0, 1, known.order, fault);
  read_proofs(as_text(scene("proofs-since.json")), known.keys, known.log, known.order, fault);
  if (fault || !known.keys.delegated || !known.order.log.size) std::abort();
  fuzz::keys_are_stolen = true;
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::unique_ptr<char[]> body(new char[size - 1]);
  std::memcpy(body.get(), data + 1, size - 1);
  fuzz::chosen->read({{body.get(), static_cast<uint32_t>(size - 1)}, 1u + data[0]});
  return 0;
}
