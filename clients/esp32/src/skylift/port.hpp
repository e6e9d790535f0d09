// The hardware port: everything the core asks of the chip it runs on. One screen; each function says what it must
// not do. None of them may block longer than it takes to move one buffer, erase one sector, or make one connection.
#pragma once
#include "bytes.hpp"

namespace skylift {

constexpr uint32_t SECTOR = 4096;  // what flash erases at once

enum Io : int { WAIT = 0, END = -1, BROKEN = -2 };  // beside counts of bytes: not yet; over; the way is bad

struct Ask {
  const char* method;
  const char* path;           // on the configured server, begins with '/'
  const char* token;          // "" for none
  const char* body;           // JSON, or nullptr
  uint32_t from = 0;          // of the file: Range, when it is not 0
  const char* etag = nullptr;  // If-Range insists on this, when `from` is not 0
};
struct Head {
  int status;
  bool has_length;
  uint32_t length;       // of the body, where it is told
  uint32_t from, total;  // of a 206's Content-Range
  uint32_t retry_after;  // seconds; 0: not told
};

// A second stack for the delta decoder, which pulls its input. `resume` runs it until it calls `yield` or returns.
class Fiber {
 public:
  virtual bool start(void (*deed)(void*), void* with) = 0;  // does not run it yet
  virtual void resume() = 0;
  virtual void yield() = 0;  // called from inside
  virtual void stop() = 0;   // forgets it, wherever it stands

 protected:
  ~Fiber() = default;
};

class Port {
 public:
  // HTTP: one exchange at a time. TLS with the pinned CA, and no redirects: both are the port's to enforce.
  virtual bool http_open(const Ask& ask) = 0;             // false: no way there now
  virtual int http_head(Head& head) = 0;                  // 1, WAIT or BROKEN
  virtual int http_read(uint8_t* to, uint32_t most) = 0;  // bytes, WAIT, END when all that was told is read, BROKEN
  virtual void http_close() = 0;

  // Flash: two slots, 0 and 1. `write` changes what was erased, never more than it is told, and is verified later.
  virtual uint32_t slot_size(uint8_t slot) = 0;
  virtual bool erase(uint8_t slot, uint32_t at) = 0;  // the sector that begins there
  virtual bool write(uint8_t slot, uint32_t at, const uint8_t* from, uint32_t n) = 0;
  virtual bool read(uint8_t slot, uint32_t at, uint8_t* to, uint32_t n) = 0;
  virtual const uint8_t* map(uint8_t slot, uint32_t n) = 0;  // its first bytes in one piece; nullptr: no deltas
  virtual Fiber* fiber() = 0;                                // nullptr: no deltas

  // Boot control. `set_boot` boots the slot on trial, once: an image that is not marked valid falls back.
  virtual uint8_t running() = 0;
  virtual bool set_boot(uint8_t slot) = 0;
  virtual bool pending_verify() = 0;
  virtual bool mark_valid() = 0;
  virtual void mark_invalid_and_reboot() = 0;
  virtual void restart() = 0;

  // The rest. `now`: seconds since 1970 (until 2106), 0 while the clock is not set. `put`: all or nothing, as far as it can.
  virtual uint32_t millis() = 0;
  virtual uint32_t now() = 0;
  virtual void random(uint8_t* to, uint32_t n) = 0;
  virtual int get(const char* key, void* to, uint32_t room) = 0;  // bytes; -1: not there
  virtual bool put(const char* key, const void* from, uint32_t n) = 0;
  virtual void log(const char* sentence) = 0;

 protected:
  ~Port() = default;
};

// A byte stream to a host, for http1.hpp and mqtt.hpp: what a chip without an HTTP client of its own has to give.
class Socket {
 public:
  virtual bool open(const char* host, uint16_t port, bool tls) = 0;
  virtual int send(const void* from, uint32_t n) = 0;  // bytes, WAIT or BROKEN
  virtual int receive(void* to, uint32_t most) = 0;    // bytes, WAIT, END or BROKEN
  virtual void close() = 0;

 protected:
  ~Socket() = default;
};

}  // namespace skylift
