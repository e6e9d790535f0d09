// HTTP/1.1 over a byte stream, for ports without a client of their own: one exchange a connection, a bounded head,
// bodies by length, chunks, or until the end. What comes in is a stranger's.
#pragma once
#include "port.hpp"

namespace skylift {

struct Server {
  char host[96] = {0};
  uint16_t port = 0;
  bool tls = false;
};
// `http://host[:port]` or `https://...`; false for anything else.
bool server_of(const char* url, Server& to);

class Http1 {
 public:
  Http1(Socket& socket, const Server& server) : socket_(socket), server_(server) {}
  bool open(const Ask& ask);
  int head(Head& head);
  int read(uint8_t* to, uint32_t most);
  void close();

 private:
  enum class Body : uint8_t { LENGTH, CHUNKS, UNTIL_END };
  int send();
  int fill();
  int line();  // 1: a line is in line_, WAIT or BROKEN
  void header(Head& head);
  int chunk();
  int raw(uint8_t* to, uint32_t most);

  Socket& socket_;
  const Server& server_;
  char out_[704];
  uint32_t out_size_ = 0, sent_ = 0;
  const char* body_ = nullptr;
  uint8_t in_[512];
  uint32_t at_ = 0, have_ = 0;
  char line_[256];
  uint32_t line_size_ = 0, head_size_ = 0;
  Body kind_ = Body::UNTIL_END;
  uint32_t left_ = 0;
  bool status_known_ = false, last_chunk_ = false, in_trailer_ = false, is_open_ = false;
};

}  // namespace skylift
