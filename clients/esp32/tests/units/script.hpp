// A socket that plays what it is told, in pieces of every size, and a chip whose clock stands still.
#pragma once
#include "../cuts.hpp"
#include "skylift/http1.hpp"

class Script final : public skylift::Socket {
 public:
  bool open(const char*, uint16_t, bool) override {
    opened++;
    at = 0;
    return opens;
  }
  int send(const void* from, uint32_t n) override {
    if (breaks_send) return skylift::BROKEN;
    if (shy && (turn ^= 1)) return skylift::WAIT;
    const uint32_t part = n < piece ? n : piece;
    sent.append(static_cast<const char*>(from), part);
    return static_cast<int>(part);
  }
  int receive(void* to, uint32_t most) override {
    if (shy && (turn ^= 1)) return skylift::WAIT;
    uint32_t n = static_cast<uint32_t>(answer.size()) - at;
    if (!n) return ends;
    n = n < piece ? n : piece;
    n = n < most ? n : most;
    std::memcpy(to, answer.data() + at, n);
    at += n;
    return static_cast<int>(n);
  }
  void close() override { closed++; }
  std::string answer, sent;
  uint32_t piece = 1000000, at = 0;
  int ends = skylift::END, opened = 0, closed = 0, turn = 0;
  bool opens = true, shy = false, breaks_send = false;
};

class Clock final : public desk::DeskPort {
 public:
  Clock(desk::Flash& f, desk::BootLoader& l) : DeskPort(f, l) {}
  bool http_open(const skylift::Ask&) override { return false; }
  int http_head(skylift::Head&) override { return skylift::BROKEN; }
  int http_read(uint8_t*, uint32_t) override { return skylift::BROKEN; }
  void http_close() override {}
  uint32_t millis() override { return at; }
  uint32_t now() override { return 0; }
  void random(uint8_t*, uint32_t) override {}
  void log(const char*) override {}
  uint32_t at = 0;
};
