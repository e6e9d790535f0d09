// libFuzzer targets of every parser that reads from the network: the first byte of an input chooses.
//   0 JSON (both readings), walked   1 a signed order   2 a signed role, its order given   3 a root, a delegation
//   4 HTTP, in pieces   5 MQTT, in pieces   6 DER and P-256   7 the check's answer, by the client   8 a delta
//   9 the log's proofs, the order they are about given
#include <csetjmp>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include "cuts.hpp"
#include "skylift/crypto.hpp"
#include "skylift/http1.hpp"
#include "skylift/mqtt.hpp"
#include "skylift/trust.hpp"

using namespace skylift;

namespace {

void walk(const Json& value, int depth) {
  uint32_t number;
  value.number(UINT32_MAX, &number);
  value.string();
  if (depth > JSON_DEPTH) std::abort();
  for (Members each(value); each.next();) walk(each.value, depth + 1);
}

class Bytes final : public Socket {
 public:
  Bytes(const uint8_t* data, size_t size, uint32_t piece) : data_(data), left_(size), piece_(piece) {}
  bool open(const char*, uint16_t, bool) override { return true; }
  int send(const void*, uint32_t n) override { return static_cast<int>(n); }
  int receive(void* to, uint32_t most) override {
    size_t n = left_ < most ? left_ : most;
    n = n < piece_ ? n : piece_;
    if (!n) return END;
    std::memcpy(to, data_, n);
    data_ += n;
    left_ -= n;
    return static_cast<int>(n);
  }
  void close() override {}

 private:
  const uint8_t* data_;
  size_t left_;
  uint32_t piece_;
};

class NoPort final : public desk::DeskPort {
 public:
  using DeskPort::DeskPort;
  bool http_open(const Ask& ask) override {
    at_ = 0;
    return std::strncmp(ask.path, "/api/updates/check", 18) == 0;
  }
  int http_head(Head& head) override {
    head = Head();
    head.status = 200;
    return 1;
  }
  int http_read(uint8_t* to, uint32_t most) override {
    uint32_t n = static_cast<uint32_t>(body.size()) - at_;
    if (!n) return END;
    n = n < most ? n : most;
    std::memcpy(to, body.data() + at_, n);
    at_ += n;
    return static_cast<int>(n);
  }
  void http_close() override {}
  uint8_t running() override { return 0; }
  uint32_t millis() override { return clock_ += 3; }
  uint32_t now() override { return 0; }
  void random(uint8_t* to, uint32_t n) override { std::memset(to, 1, n); }
  void log(const char*) override {}
  std::string body;

 private:
  uint32_t at_ = 0, clock_ = 0;
};

class NoHooks final : public Hooks {};

Keys keys;
Seen seen;
Order proved;
std::string order_file, base_image, image_root, director_root;

std::string contents(const char* name) {
  const char* folder = std::getenv("SKYLIFT_SCENE");
  std::ifstream in(std::string(folder ? folder : ".") + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
Text as_text(const std::string& some) { return {some.data(), static_cast<uint32_t>(some.size())}; }

// The bytes of a client that is about to check.
std::string ready(Client& client) {
  Config config;
  config.device_id = "dev-1";
  config.token = "t";
  config.product = "sensor";
  config.health_seconds = 0;
  config.image_root = as_text(image_root);
  config.director_root = as_text(director_root);
  client.begin(config);
  while (client.state() != State::CHECK) client.step();
  return {reinterpret_cast<const char*>(&client), sizeof client};
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  Fault fault = {};
  image_root = contents("image.root");
  director_root = contents("director.root");
  take_root(Repo::IMAGE, as_text(image_root), true, keys, seen, fault);
  take_root(Repo::DIRECTOR, as_text(director_root), true, keys, seen, fault);
  const std::string delegation = contents("image!1.targets.json");
  take_delegation(as_text(delegation), "sensor", 0, keys, seen, fault);
  base_image = contents("old.bin");
  order_file = contents("director!dev-1!order.json");
  const std::string role_file = contents("image!2.sensor.json");
  const Device device = {"dev-1", "sensor-v2", "sensor"};
  read_order(as_text(order_file), device, Text(), keys, seen, 1, proved, fault);
  read_role(as_text(role_file), device, keys, seen, 0, 1, proved, fault);
  if (fault || !keys.delegated || !proved.log.size) std::abort();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const int which = data[0] % 10;
  const uint32_t piece = 1 + data[1];
  // A copy of exactly its size, so that a step beyond it is seen.
  const std::string input(reinterpret_cast<const char*>(data + 2), size - 2);
  char* body = static_cast<char*>(std::malloc(input.size() + 1));
  std::memcpy(body, input.data(), input.size());
  body = static_cast<char*>(std::realloc(body, input.size() ? input.size() : 1));
  const Text text = {body, static_cast<uint32_t>(input.size())};
  const Device device = {"dev-1", "sensor-v2", "sensor"};
  Fault fault = {};
  Order order;
  Keys own = keys;
  Seen last = seen;
  switch (which) {
    case 0:
      walk(Json::parse(text), 0);
      walk(Json::parse(text, true), 0);
      break;
    case 1: read_order(text, device, {"00", 2}, own, last, 1, order, fault); break;
    case 2:
      order = proved;
      read_role(text, device, own, last, 0, 1, order, fault);
      break;
    case 3:
      take_root(piece & 1 ? Repo::IMAGE : Repo::DIRECTOR, text, piece & 2, own, last, fault);
      take_delegation(text, "sensor", 1, own, last, fault);
      break;
    case 4: {
      Bytes socket(reinterpret_cast<const uint8_t*>(body), input.size(), piece);
      Server server;
      server_of("http://h", server);
      Http1 http(socket, server);
      const Ask ask = {"GET", "/", "", nullptr, 0, nullptr};
      Head head;
      uint8_t some[64];
      if (http.open(ask) && http.head(head) == 1)
        while (http.read(some, sizeof some) > 0) {
        }
      break;
    }
    case 5: {
      static desk::Flash flash(desk::SECTOR);
      static desk::BootLoader loader(flash);
      static NoPort port(flash, loader);
      Bytes socket(reinterpret_cast<const uint8_t*>(body), input.size(), piece);
      Server server;
      server_of("http://h", server);
      Doorbell bell(socket, port);
      bell.begin(server, "dev", "tok");
      for (size_t k = 0; k < input.size() / piece + 8; k++) bell.step();
      break;
    }
    case 6: {
      uint8_t key[64] = {1}, digest[32] = {2};
      if (input.size() > 64) std::memcpy(key, body, 64);
      const uint32_t skip = input.size() > 64 ? 64 : 0;
      p256_verify(key, digest, reinterpret_cast<const uint8_t*>(body) + skip, static_cast<uint32_t>(input.size()) - skip);
      break;
    }
    case 7: {
      static desk::Flash flash(desk::SECTOR);
      static desk::BootLoader loader(flash);
      static NoPort port(flash, loader);
      static NoHooks hooks;
      static Client client(port, hooks);
      // As it is before its first check, its roots verified: kept, and each input begins there.
      static const std::string before = ready(client);
      std::memcpy(static_cast<void*>(&client), before.data(), before.size());
      port.body = input;
      for (int k = 0; k < 40 && client.state() != State::REST; k++) client.step();
      client.finish();
      break;
    }
    case 9: {
      Log known = {};
      known.size = piece % 8;  // it goes on from none, from a part of it, or from more
      read_proofs(text, own, known, proved, fault);
      break;
    }
    default: {
      static desk::HostFiber fiber;
      static uint64_t memory[DELTA_MEMORY / 8];
      uint8_t digest[32] = {0};
      if (input.size() > 46) std::memcpy(digest, body + 30, 16);
      DeltaRun delta;
      delta.begin(fiber, reinterpret_cast<const uint8_t*>(base_image.data()), static_cast<uint32_t>(base_image.size()), digest, memory,
                  64 << 10);
      uint32_t at = 0;
      for (;;) {
        const DeltaRun::Want want = delta.step();
        if (want == DeltaRun::Want::DONE || want == DeltaRun::Want::FAILED) break;
        if (want != DeltaRun::Want::INPUT) continue;
        const uint32_t n = text.size - at < piece ? text.size - at : piece;
        delta.feed(reinterpret_cast<const uint8_t*>(body) + at, n);
        at += n;
      }
      delta.why();
      delta.end();
    }
  }
  std::free(body);
  return 0;
}
