// The vectors of conformance/http and conformance/lifecycle (tests/clients/test_exchanges.py writes the lines).
//
// usage: exchanges answers MOST PIECE      an answer a line, hexadecimal: what a small file comes to
//        exchanges checks FOLDER PIECE     an answer a line: what the client does after it; FOLDER: testkit's scene
//        exchanges words FOLDER            a state a line, as the server answers reports with it: goes on, or ends
//        exchanges reasons                 every reason there is
#include <iostream>

#include "cuts.hpp"
#include "skylift/http1.hpp"

namespace {

using namespace skylift;

std::string bytes(const std::string& hex) {
  std::string found(hex.size() / 2, 0);
  for (size_t k = 0; k < found.size(); k++) found[k] = static_cast<char>(std::stoi(hex.substr(2 * k, 2), nullptr, 16));
  return found;
}

// A line that answers with what it was given, so many bytes at a time, and ends.
class Line1 final : public Socket {
 public:
  bool open(const char*, uint16_t, bool) override {
    at_ = 0;
    return true;
  }
  int send(const void*, uint32_t n) override { return static_cast<int>(n); }
  int receive(void* to, uint32_t most) override {
    if (waits_ = !waits_; waits_) return WAIT;
    const uint32_t left = static_cast<uint32_t>(answer.size()) - at_;
    const uint32_t n = std::min(std::min(left, most), piece);
    if (!n) return END;
    std::memcpy(to, answer.data() + at_, n);
    at_ += n;
    return static_cast<int>(n);
  }
  void close() override {}
  std::string answer;
  uint32_t piece = 1;

 private:
  uint32_t at_ = 0;
  bool waits_ = false;
};

std::string hex_of(const std::string& body) {
  static const char* const DIGITS = "0123456789abcdef";
  std::string found;
  for (const char each : body) found += DIGITS[static_cast<uint8_t>(each) >> 4], found += DIGITS[each & 15];
  return found;
}

std::string comes_to(Line1& line, uint32_t most) {
  Server server;
  server_of("http://h", server);
  Http1 http(line, server);
  Head head;
  int n = WAIT;
  if (!http.open({"GET", "/x", "", nullptr, 0, nullptr})) return "broken";
  while (n == WAIT) n = http.head(head);
  if (n == BROKEN) return "broken";
  const uint32_t told = head.retry_after ? head.retry_after : 30;  // what the client makes of it: refused_or_away
  if (head.status != 200) return std::to_string(head.status) + " " + std::to_string(std::min(told, 3600u));
  std::string body;
  uint8_t room[64];
  while ((n = http.read(room, sizeof room)) != END) {
    if (n == BROKEN) return "broken";
    if (n > 0) body.append(reinterpret_cast<char*>(room), static_cast<size_t>(n));
    if (body.size() > most) return "large";
  }
  return "200 " + hex_of(body);
}

// --- the client, on a chip that was made for it --------------------------------------------------------------------------

struct Scene {
  std::string old_image, image_root, director_root, id, type, product, old_version, new_version;
  int64_t now = 0;
  desk::Answers answers;

  explicit Scene(const std::string& folder) {
    std::ifstream about(folder + "/words");
    about >> id >> type >> product >> old_version >> new_version >> now;
    old_image = desk::contents(folder + "/old.bin");
    image_root = desk::contents(folder + "/image.root");
    director_root = desk::contents(folder + "/director.root");
    std::ifstream list(folder + "/list");
    for (std::string path, file; list >> path >> file;) answers.files[path] = desk::contents(folder + "/" + file);
    answers.check = desk::contents(folder + "/check.json");
    answers.image_version = new_version;
  }
  Config config() const {
    Config made;
    made.device_id = id.c_str();
    made.device_type = type.c_str();
    made.product = product.c_str();
    made.version = old_version.c_str();
    made.token = "t";
    made.image_root = {image_root.data(), static_cast<uint32_t>(image_root.size())};
    made.director_root = {director_root.data(), static_cast<uint32_t>(director_root.size())};
    return made;
  }
};

// The check is answered by bytes on a line, everything else by a server that is away.
class CheckPort final : public desk::DeskPort {
 public:
  CheckPort(desk::Flash& flash, desk::BootLoader& loader, Line1& line, const std::string& answer)
      : DeskPort(flash, loader), line_(line), answer_(answer), http_(line, server_) {
    server_of("http://h", server_);
  }
  bool http_open(const Ask& ask) override {
    const std::string path = ask.path;
    const bool is_check = path.compare(0, 18, "/api/updates/check") == 0;
    asks_for_files |= path.compare(0, 7, "/image/") == 0 || path.compare(0, 10, "/director/") == 0;
    line_.answer = is_check ? answer_ : "HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n";
    return http_.open(ask);
  }
  int http_head(Head& head) override { return http_.head(head); }
  int http_read(uint8_t* to, uint32_t most) override { return http_.read(to, most); }
  void http_close() override { http_.close(); }
  uint32_t millis() override { return clock_ += 7; }
  uint32_t now() override { return 0; }
  void random(uint8_t* to, uint32_t n) override { std::memset(to, 0x5C, n); }
  void log(const char*) override { complains = true; }
  bool asks_for_files = false, complains = false;

 private:
  Line1& line_;
  std::string answer_;
  Server server_;
  Http1 http_;
  uint32_t clock_ = 0;
};

class NoHooks final : public Hooks {};

std::string next_after(const Scene& scene, Line1& line, const std::string& answer) {
  desk::Flash flash(160 << 10);
  desk::BootLoader loader(flash);
  loader.provision(scene.old_image);
  loader.boot();
  CheckPort port(flash, loader, line, answer);
  NoHooks hooks;
  static Client* client = nullptr;
  delete client;
  client = new Client(port, hooks);
  Config config = scene.config();
  config.health_seconds = 0;  // what it complains of is then the check
  client->begin(config);
  for (int k = 0; k < 200000 && client->state() != State::REST && client->state() != State::HALT; k++) client->step();
  if (client->state() != State::REST) return "stuck";
  return port.asks_for_files ? "offer" : port.complains ? "later" : "nothing";
}

std::string after_word(const Scene& scene, const std::string& state) {
  desk::Flash flash(160 << 10);
  desk::BootLoader loader(flash);
  loader.provision(scene.old_image);
  loader.boot();
  desk::MemoryPort port(flash, loader, scene.answers);
  port.says = &state;
  port.when = scene.now;
  NoHooks hooks;
  static Client* client = nullptr;
  delete client;
  client = new Client(port, hooks);
  client->begin(scene.config());
  for (int k = 0; k < 400000 && !port.wants_restart && client->state() != State::REST; k++) client->step();
  return port.wants_restart ? "goes on" : client->state() == State::REST ? "ends" : "stuck";
}

}  // namespace

int main(int count, char** words) {
  const std::string what = count > 1 ? words[1] : "";
  Line1 line;
  std::string each;
  if (what == "answers" && count == 4) {
    line.piece = static_cast<uint32_t>(std::stoul(words[3]));
    while (std::getline(std::cin, each)) {
      line.answer = bytes(each);
      std::printf("%s\n", comes_to(line, static_cast<uint32_t>(std::stoul(words[2]))).c_str());
    }
    return 0;
  }
  if (what == "checks" && count == 4) {
    const Scene scene(words[2]);
    line.piece = static_cast<uint32_t>(std::stoul(words[3]));
    while (std::getline(std::cin, each)) std::printf("%s\n", next_after(scene, line, bytes(each)).c_str());
    return 0;
  }
  if (what == "words" && count == 3) {
    const Scene scene(words[2]);
    while (std::getline(std::cin, each)) std::printf("%s\n", after_word(scene, each).c_str());
    return 0;
  }
  if (what == "reasons") {
    for (int k = 1; k <= static_cast<int>(Reason::ABORTED); k++) std::printf("%s\n", name_of(static_cast<Reason>(k)));
    return 0;
  }
  std::fputs("usage: exchanges answers MOST PIECE | checks FOLDER PIECE | words FOLDER | reasons\n", stderr);
  return 2;
}
