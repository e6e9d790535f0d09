#include "http1.hpp"

namespace skylift {
namespace {

constexpr uint32_t MOST_HEAD = 8192;

// Whether a line is the header `name`; its value, without spaces.
bool header_is(const char* line, const char* name, Text* value) {
  uint32_t k = 0;
  for (; name[k]; k++) {
    const char c = line[k] >= 'A' && line[k] <= 'Z' ? static_cast<char>(line[k] + 32) : line[k];
    if (c != name[k]) return false;
  }
  if (line[k] != ':') return false;
  const char* at = line + k + 1;
  while (*at == ' ' || *at == '\t') at++;
  *value = text(at);
  while (value->size && (at[value->size - 1] == ' ' || at[value->size - 1] == '\t')) value->size--;
  return true;
}

// `bytes FROM-TO/TOTAL`
void content_range(Text value, Head& head) {
  uint32_t dash = 0, slash = 0;
  for (uint32_t k = 0; k < value.size; k++) {
    if (value.at[k] == '-' && !dash) dash = k;
    if (value.at[k] == '/') slash = k;
  }
  if (dash < 7 || slash < dash || !equal(value.at, "bytes ", 6)) return;
  uint32_t from, total;
  if (from_decimal({value.at + 6, dash - 6}, UINT32_MAX, &from) &&
      from_decimal({value.at + slash + 1, value.size - slash - 1}, UINT32_MAX, &total))
    head.from = from, head.total = total;
}

}  // namespace

bool server_of(const char* url, Server& to) {
  to = Server();
  uint32_t at = 0;
  if (length(url) > 7 && equal(url, "http://", 7))
    at = 7;
  else if (length(url) > 8 && equal(url, "https://", 8))
    at = 8, to.tls = true;
  else
    return false;
  to.port = to.tls ? 443 : 80;
  uint32_t end = at;
  while (url[end] && url[end] != ':' && url[end] != '/') end++;
  if (end == at || !keep({url + at, end - at}, to.host, sizeof to.host)) return false;
  if (url[end] == ':') {
    const uint32_t from = ++end;
    while (url[end] >= '0' && url[end] <= '9') end++;
    uint32_t port;
    if (!from_decimal({url + from, end - from}, 65535, &port) || !port) return false;
    to.port = static_cast<uint16_t>(port);
  }
  return !url[end] || (url[end] == '/' && !url[end + 1]);
}

bool Http1::open(const Ask& ask) {
  close();
  Line out(out_, sizeof out_);
  out.put(ask.method).put(' ').put(ask.path).put(" HTTP/1.1\r\nHost: ").put(server_.host).put(':').number(server_.port);
  out.put("\r\nUser-Agent: skylift-esp32\r\nConnection: close\r\n");
  if (ask.token[0]) out.put("Authorization: Bearer ").put(ask.token).put("\r\n");
  if (ask.from) {
    out.put("Range: bytes=").number(ask.from).put("-\r\n");
    if (ask.etag) out.put("If-Range: \"").put(ask.etag).put("\"\r\n");
  }
  if (ask.body)
    out.put("Content-Type: application/json\r\nContent-Length: ").number(static_cast<uint32_t>(length(ask.body))).put("\r\n");
  out.put("\r\n");
  out_size_ = out.size();
  body_ = ask.body;
  sent_ = at_ = have_ = line_size_ = head_size_ = 0;
  kind_ = Body::UNTIL_END;
  left_ = 0;
  status_known_ = last_chunk_ = in_trailer_ = false;
  is_open_ = out.whole() && socket_.open(server_.host, server_.port, server_.tls);
  return is_open_;
}

void Http1::close() {
  if (is_open_) socket_.close();
  is_open_ = false;
}

// The request, as far as it goes; 1 when all of it is sent.
int Http1::send() {
  const uint32_t all = out_size_ + (body_ ? static_cast<uint32_t>(length(body_)) : 0);
  while (sent_ < all) {
    const bool in_body = sent_ >= out_size_;
    const char* from = in_body ? body_ + (sent_ - out_size_) : out_ + sent_;
    const int n = socket_.send(from, (in_body ? all : out_size_) - sent_);
    if (n <= 0) return n ? static_cast<int>(BROKEN) : static_cast<int>(WAIT);
    sent_ += static_cast<uint32_t>(n);
  }
  return 1;
}

int Http1::fill() {
  at_ = have_ = 0;
  const int n = socket_.receive(in_, sizeof in_);
  if (n > 0) have_ = static_cast<uint32_t>(n);
  return n;
}

int Http1::line() {
  for (;;) {
    if (at_ == have_) {
      const int n = fill();
      if (n <= 0) return n == WAIT ? WAIT : BROKEN;
    }
    const char c = static_cast<char>(in_[at_++]);
    if (++head_size_ > MOST_HEAD) return BROKEN;
    if (c == '\n') {
      if (line_size_ && line_[line_size_ - 1] == '\r') line_size_--;
      line_[line_size_] = 0;
      line_size_ = 0;
      return 1;
    }
    if (line_size_ < sizeof line_ - 1) line_[line_size_++] = c;  // the rest of a long one is nothing we read
  }
}

void Http1::header(Head& head) {
  Text value;
  uint32_t number;
  if (header_is(line_, "content-length", &value)) {
    from_decimal(value, UINT32_MAX, &left_);  // 0 for what is none: nothing is read then
    head.length = left_;
    head.has_length = true;
    if (kind_ != Body::CHUNKS) kind_ = Body::LENGTH;
  } else if (header_is(line_, "transfer-encoding", &value)) {
    kind_ = Body::CHUNKS;
  } else if (header_is(line_, "content-range", &value)) {
    content_range(value, head);
  } else if (header_is(line_, "retry-after", &value) && from_decimal(value, 1000000, &number)) {
    head.retry_after = number;
  }
}

int Http1::head(Head& head) {
  const int sent = send();
  if (sent != 1) return sent;
  for (;;) {
    const int got = line();
    if (got != 1) return got;
    if (!status_known_) {
      uint32_t status;
      clear(head);
      if (length(line_) < 12 || !equal(line_, "HTTP/1.", 7) || !from_decimal({line_ + 9, 3}, 599, &status) || status < 100)
        return BROKEN;
      head.status = static_cast<int>(status);
      status_known_ = true;
    } else if (line_[0]) {
      header(head);
    } else if (head.status < 200) {
      status_known_ = false;  // 100 Continue and the like: the answer follows
    } else {
      if (kind_ == Body::CHUNKS) head.has_length = false, left_ = 0;
      if (head.status == 204 || head.status == 304) kind_ = Body::LENGTH, left_ = 0;
      return 1;
    }
  }
}

// To the next chunk's bytes: 1, END behind the last, WAIT or BROKEN.
int Http1::chunk() {
  while (!left_) {
    const int got = line();
    if (got != 1) return got;
    if (in_trailer_) {
      if (!line_[0]) return END;
      continue;
    }
    if (last_chunk_) {  // the line end behind a chunk's bytes
      if (line_[0]) return BROKEN;
      last_chunk_ = false;
      continue;
    }
    uint32_t k = 0;
    for (; hex_digit(line_[k]) >= 0; k++) left_ = left_ << 4 | static_cast<uint32_t>(hex_digit(line_[k]));
    if (!k || k > 8 || (line_[k] && line_[k] != ';')) return BROKEN;
    head_size_ = 0;
    in_trailer_ = !left_;
  }
  return 1;
}

int Http1::raw(uint8_t* to, uint32_t most) {
  if (at_ == have_) {
    const int n = fill();
    if (n <= 0) return n;
  }
  const uint32_t n = have_ - at_ < most ? have_ - at_ : most;
  copy(to, in_ + at_, n);
  at_ += n;
  return static_cast<int>(n);
}

int Http1::read(uint8_t* to, uint32_t most) {
  if (kind_ == Body::UNTIL_END) return raw(to, most);
  if (kind_ == Body::CHUNKS) {
    const int ready = chunk();
    if (ready != 1) return ready;
  }
  if (!left_) return END;
  const int n = raw(to, left_ < most ? left_ : most);
  if (n <= 0) return n == WAIT ? WAIT : BROKEN;  // it ended before what it had told
  left_ -= static_cast<uint32_t>(n);
  last_chunk_ = kind_ == Body::CHUNKS && !left_;
  return n;
}

}  // namespace skylift
