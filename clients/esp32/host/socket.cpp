#include "socket.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef SKYLIFT_TLS
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif

namespace desk {

using skylift::BROKEN;
using skylift::END;
using skylift::WAIT;

constexpr int CONNECT_MS = 5000;

bool HostSocket::open(const char* host, uint16_t port, bool tls) {
  close();
  addrinfo hints = {}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(host, std::to_string(port).c_str(), &hints, &found) != 0) return false;
  handle_ = socket(found->ai_family, SOCK_STREAM, 0);
  fcntl(handle_, F_SETFL, O_NONBLOCK);
  const int one = 1;
  setsockopt(handle_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  int done = connect(handle_, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  if (done && errno == EINPROGRESS) {
    pollfd waits = {handle_, POLLOUT, 0};
    socklen_t size = sizeof done;
    if (poll(&waits, 1, CONNECT_MS) == 1) getsockopt(handle_, SOL_SOCKET, SO_ERROR, &done, &size);
  }
  if (done || (tls && !secure(host))) {
    close();
    return false;
  }
  return true;
}

int HostSocket::send(const void* from, uint32_t n) {
#ifdef SKYLIFT_TLS
  if (session_) {
    SSL* session = static_cast<SSL*>(session_);
    const int sent = SSL_write(session, from, static_cast<int>(n));
    if (sent > 0) return sent;
    const int why = SSL_get_error(session, sent);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? WAIT : BROKEN;
  }
#endif
  const ssize_t sent = ::send(handle_, from, n, MSG_NOSIGNAL);
  if (sent >= 0) return static_cast<int>(sent);
  return errno == EAGAIN ? static_cast<int>(WAIT) : static_cast<int>(BROKEN);
}

int HostSocket::receive(void* to, uint32_t most) {
  const int got = read(to, most);
  if (got <= 0 || !flaky) return got;
  seed = seed * 1664525u + 1013904223u;
  return (seed >> 8) % 1000000u < flaky ? static_cast<int>(BROKEN) : got;
}

int HostSocket::read(void* to, uint32_t most) {
#ifdef SKYLIFT_TLS
  if (session_) {
    SSL* session = static_cast<SSL*>(session_);
    const int got = SSL_read(session, to, static_cast<int>(most));
    if (got > 0) return got;
    const int why = SSL_get_error(session, got);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? WAIT : why == SSL_ERROR_ZERO_RETURN ? END : BROKEN;
  }
#endif
  const ssize_t got = recv(handle_, to, most, 0);
  if (got > 0) return static_cast<int>(got);
  if (got == 0) return END;
  return errno == EAGAIN ? static_cast<int>(WAIT) : static_cast<int>(BROKEN);
}

void HostSocket::close() {
#ifdef SKYLIFT_TLS
  if (session_) SSL_free(static_cast<SSL*>(session_));
  if (context_) SSL_CTX_free(static_cast<SSL_CTX*>(context_));
#endif
  session_ = context_ = nullptr;
  if (handle_ >= 0) ::close(handle_);
  handle_ = -1;
}

#ifdef SKYLIFT_TLS
bool HostSocket::secure(const char* host) {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  context_ = context;
  if (ca_file.empty() || SSL_CTX_load_verify_locations(context, ca_file.c_str(), nullptr) != 1) return false;
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL* session = SSL_new(context);
  session_ = session;
  in_addr numeric;
  X509_VERIFY_PARAM* who = SSL_get0_param(session);
  if (inet_pton(AF_INET, host, &numeric) == 1)
    X509_VERIFY_PARAM_set1_ip_asc(who, host);
  else
    X509_VERIFY_PARAM_set1_host(who, host, 0);
  SSL_set_tlsext_host_name(session, host);
  SSL_set_fd(session, handle_);
  for (int tries = 0; tries < 100; tries++) {
    const int done = SSL_connect(session);
    if (done == 1) return true;
    const int why = SSL_get_error(session, done);
    pollfd waits = {handle_, static_cast<short>(why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT), 0};
    if ((why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) || poll(&waits, 1, CONNECT_MS) != 1) return false;
  }
  return false;
}
#else
bool HostSocket::secure(const char*) { return false; }
#endif

}  // namespace desk
