// Sockets of the host, plain and, where it was built with OpenSSL (-DSKYLIFT_TLS), TLS with a pinned CA.
#pragma once
#include <string>

#include "../src/skylift/port.hpp"

namespace desk {

class HostSocket : public skylift::Socket {
 public:
  bool open(const char* host, uint16_t port, bool tls) override;
  int send(const void* from, uint32_t n) override;
  int receive(void* to, uint32_t most) override;
  void close() override;

  std::string ca_file;     // who may sign the server's certificate; TLS is refused without
  uint32_t flaky = 0;      // chance, in a million, that a line breaks at a read that would have brought something
  uint32_t seed = 1;

 private:
  bool secure(const char* host);
  int read(void* to, uint32_t most);
  int handle_ = -1;
  void *context_ = nullptr, *session_ = nullptr;
};

}  // namespace desk
