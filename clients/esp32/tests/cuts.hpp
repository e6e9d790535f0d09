// A server in memory and a device on the desk's chip, for proofs that need a hundred thousand lives: the files are
// real (python-tuf's, made by tests or bench), the answers are what a server of ours gives.
#pragma once
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "../host/desk.hpp"
#include "skylift/client.hpp"

namespace desk {

inline std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// What the server has: paths (without their query) and what they answer.
struct Answers {
  std::map<std::string, std::string> files;
  std::string check;          // the answer while an update is offered
  std::string image_version;  // a device that says it runs this is offered nothing
  int breaks_every = 0;       // bytes after which a download breaks; 0: never
};

class MemoryPort final : public DeskPort {
 public:
  MemoryPort(Flash& flash, BootLoader& loader, const Answers& answers) : DeskPort(flash, loader), answers_(answers) {}
  bool http_open(const skylift::Ask& ask) override;
  int http_head(skylift::Head& head) override;
  int http_read(uint8_t* to, uint32_t most) override;
  void http_close() override {}
  bool mark_valid() override { return !mark_fails && DeskPort::mark_valid(); }
  bool set_boot(uint8_t slot) override { return !boot_fails && DeskPort::set_boot(slot); }
  const uint8_t* map(uint8_t slot, uint32_t n) override { return map_fails ? nullptr : DeskPort::map(slot, n); }
  bool read(uint8_t slot, uint32_t at, uint8_t* to, uint32_t n) override { return !reads_fail && DeskPort::read(slot, at, to, n); }
  uint32_t millis() override { return clock_ += 7; }
  uint32_t now() override { return when; }
  void random(uint8_t* to, uint32_t n) override { std::memset(to, 0x5C, n); }  // the nonce the files answer
  void log(const char* sentence) override;

  void pass(uint32_t ms) { clock_ += ms; }  // time goes by

  uint32_t when = 0;
  std::vector<std::string> reports;  // final ones: states
  std::string word;                  // of health, the last one
  bool verbose = false;
  uint32_t piece = 1u << 30, read_ms = 0;  // at most so many bytes at a time, and what each piece takes
  bool* counts = nullptr;  // whether allocations are counted: not those of this server
  // What goes wrong: set from outside at any time.
  std::map<std::string, int> status_for;  // path -> status
  uint32_t retry_after = 0;
  const std::string* says = nullptr;  // the state that every report is answered with
  bool mark_fails = false, boot_fails = false, map_fails = false, reads_fail = false;
  bool no_ranges = false, unreachable = false, breaks_head = false, silent = false, silent_body = false, ends_updates = false;

 private:
  bool answer(const skylift::Ask& ask);
  const Answers& answers_;
  std::string body_;
  skylift::Head head_ = {};
  uint32_t at_ = 0, clock_ = 0;
};

inline bool MemoryPort::http_open(const skylift::Ask& ask) {
  const bool counted = counts && *counts;
  if (counts) *counts = false;
  const bool opened = answer(ask);
  if (counts) *counts = counted;
  return opened;
}

inline bool MemoryPort::answer(const skylift::Ask& ask) {
  head_ = {};
  head_.status = 200;
  at_ = 0;
  const std::string path = ask.path, plain = path.substr(0, path.find('?'));
  if (plain == "/api/updates/check") {
    const bool has = path.find("current_version=" + answers_.image_version) != std::string::npos;
    body_ = has || answers_.check.empty() ? "{\"update_available\":false,\"retry_after\":300}" : answers_.check;
  } else if (plain == "/api/updates/status") {
    const std::string said = ask.body;
    const size_t from = said.find("\"state\":\"") + 9;
    std::string state = said.substr(from, said.find('"', from) - from);
    if (ends_updates) state = "canceled";
    if (says) state = *says;
    const bool heard = !status_for.count(plain) && !unreachable && !silent && !breaks_head;
    if (heard && (state == "complete" || state == "failed" || state == "rolled_back")) reports.push_back(state);
    body_ = "{\"recorded\":true,\"state\":\"" + state + "\",\"retry_after\":5}";
  } else if (plain.size() > 7 && plain.compare(plain.size() - 7, 7, "/health") == 0) {
    word = ask.body;
    body_ = "{\"retry_after\":5}";
  } else if (plain == "/healthz" || plain == "/api/enroll") {
    body_ = "{}";
  } else {
    const auto found = answers_.files.find(plain);
    if (found == answers_.files.end()) {
      head_.status = 404;
      body_ = "{}";
    } else {
      body_ = found->second.substr(ask.from);
      if (ask.from) head_.status = 206, head_.from = ask.from, head_.total = static_cast<uint32_t>(found->second.size());
    }
  }
  if (no_ranges && head_.status == 206) head_ = {}, head_.status = 200, body_ = answers_.files.at(plain);
  if (status_for.count(plain)) head_.status = status_for[plain], head_.retry_after = retry_after;
  head_.has_length = true;
  head_.length = static_cast<uint32_t>(body_.size());
  return !unreachable;
}

inline int MemoryPort::http_head(skylift::Head& head) {
  if (breaks_head || silent) return silent ? skylift::WAIT : skylift::BROKEN;
  head = head_;
  return 1;
}

inline int MemoryPort::http_read(uint8_t* to, uint32_t most) {
  uint32_t n = static_cast<uint32_t>(body_.size()) - at_;
  if (silent_body) return skylift::WAIT;
  if (!n) return skylift::END;
  if (n > most) n = most;
  if (n > piece) n = piece;
  clock_ += read_ms;
  if (answers_.breaks_every && at_ >= static_cast<uint32_t>(answers_.breaks_every)) return skylift::BROKEN;
  std::memcpy(to, body_.data() + at_, n);
  at_ += n;
  return static_cast<int>(n);
}

inline void MemoryPort::log(const char* sentence) {
  if (verbose) std::printf("  %s\n", sentence);
}

}  // namespace desk
