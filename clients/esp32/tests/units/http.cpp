// HTTP/1.1, in pieces of every size.
#include "check.hpp"
#include "script.hpp"

using namespace skylift;

struct Heard {
  int result = 0;
  Head head = {};
  std::string body;
};

static Heard hear(Script& script, const char* body = nullptr, uint32_t from = 0) {
  Server server;
  server_of("http://h:1", server);
  static Http1* http;
  Http1 one(script, server);
  http = &one;
  const Ask ask = {"GET", "/p", "tok", body, from, from ? "tag" : nullptr};
  Heard found;
  if (!http->open(ask)) {
    found.result = BROKEN;
    return found;
  }
  while ((found.result = http->head(found.head)) == WAIT) {
  }
  uint8_t some[300];
  while (found.result == 1 || found.result == WAIT || found.result > 0) {
    found.result = http->read(some, sizeof some);
    if (found.result > 0) found.body.append(reinterpret_cast<char*>(some), static_cast<size_t>(found.result));
    if (found.result < 0) break;
  }
  http->close();
  http->close();
  return found;
}

static void http_answers_are_read_however_they_are_cut() {
  const std::string long_line(5000, 'x');
  struct {
    const char* what;
    std::string answer;
    int result, status;
    std::string body;
  } cases[] = {
      {"a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloREST", END, 200, "hello"},
      {"until the end", "HTTP/1.0 200 OK\r\n\r\nhello", END, 200, "hello"},
      {"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n", END, 200, "hello0123456789"},
      {"chunks, and a length that lies", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", END, 200, "hi"},
      {"a length after chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\nhi\r\n0\r\n\r\n", END, 200, "hi"},
      {"100 first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", END, 404, ""},
      {"204", "HTTP/1.1 204 No\r\n\r\nxx", END, 204, ""},
      {"304", "HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\nxx", END, 304, ""},
      {"a long header", "HTTP/1.1 200 OK\r\nX: " + long_line + "\r\nContent-Length: \t2 \t\r\n\r\nok", END, 200, "ok"},
      {"cut in its body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", BROKEN, 200, "hello"},
      {"cut in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", BROKEN, 200, "he"},
      {"cut between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", BROKEN, 200, "he"},
      {"no line end behind a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nheXX\r\n", BROKEN, 200, "he"},
      {"a chunk of no size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", BROKEN, 200, ""},
      {"a chunk of any size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", BROKEN, 200, ""},
      {"a chunk and rubbish", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2x\r\n", BROKEN, 200, ""},
      {"a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", END, 200, ""},
      {"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", BROKEN, 0, ""},
      {"no status", "HTTP/1.1 abc OK\r\n\r\n", BROKEN, 0, ""},
      {"a small status", "HTTP/1.1 099 OK\r\n\r\n", BROKEN, 0, ""},
      {"nothing", "", BROKEN, 0, ""},
      {"an endless head", "HTTP/1.1 200 OK\r\nX: " + long_line + long_line, BROKEN, 200, ""},
  };
  for (const auto& one : cases)
    for (uint32_t piece : {1u, 7u, 1000000u})
      for (bool shy : {false, true}) {
        Script script;
        script.answer = one.answer;
        script.piece = piece;
        script.shy = shy;
        const Heard found = hear(script, shy ? "{}" : nullptr);
        if (found.result != one.result || found.head.status != one.status || found.body != one.body)
          failures++, std::printf("http: %s in pieces of %u: %d %d '%s'\n", one.what, piece, found.result, found.head.status, found.body.c_str());
        checks++;
      }
}

static void http_heads_tell_what_the_client_needs() {
  Script script;
  script.answer = "HTTP/1.1 206 P\r\nContent-Range: bytes 10-19/300\r\nRetry-After: 17\r\nContent-Length: 2\r\n\r\nok";
  Heard found = hear(script, nullptr, 10);
  CHECK(found.head.from == 10 && found.head.total == 300 && found.head.retry_after == 17 && found.head.length == 2);
  CHECK(script.sent.find("Range: bytes=10-\r\nIf-Range: \"tag\"\r\n") != std::string::npos);
  CHECK(script.sent.find("Authorization: Bearer tok\r\n") != std::string::npos);
  for (const char* range : {"bytes */300", "bytes x-9/300", "bytes 1-9/*", "items 1-9/300", "bytes 5"}) {
    script.answer = std::string("HTTP/1.1 206 P\r\nContent-Range: ") + range + "\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n";
    found = hear(script);
    CHECK(found.head.from == 0 && found.head.total == 0 && found.head.retry_after == 0);
  }
  script.breaks_send = true;
  CHECK(hear(script).result == BROKEN);
  script.opens = false;
  CHECK(hear(script).result == BROKEN);
}

static void addresses_are_read() {
  Server s;
  CHECK(server_of("http://a.b", s) && s.port == 80 && !s.tls && std::string(s.host) == "a.b");
  CHECK(server_of("https://a.b/", s) && s.port == 443 && s.tls);
  CHECK(server_of("https://a.b:8443", s) && s.port == 8443);
  for (const char* bad : {"", "ftp://a", "http://", "https://", "http://:80", "http://a:0", "http://a:99999", "http://a:x", "http://a/b", "a.b"})
    CHECK(!server_of(bad, s));
  CHECK(!server_of(("http://" + std::string(200, 'a')).c_str(), s));
}

void http_chapter() {
  http_answers_are_read_however_they_are_cut();
  http_heads_tell_what_the_client_needs();
  addresses_are_read();
}
