#include "mqtt.hpp"

namespace skylift {
namespace {

constexpr uint32_t KEEP_ALIVE_S = 60, ANSWER_MS = 15000, FIRST_WAIT_MS = 1000, MOST_WAIT_MS = 60000;
constexpr uint32_t MOST_PACKET = 65536;
enum Kind : uint8_t { CONNECT = 0x10, CONNACK = 0x20, PUBLISH = 0x30, PUBACK = 0x40, SUBSCRIBE = 0x82, SUBACK = 0x90, PING = 0xC0 };

}  // namespace

void Doorbell::begin(const Server& broker, const char* device_id, const char* token) {
  broker_ = &broker;
  device_id_ = device_id;
  token_ = token;
  wait_ = 0;
  since_ = port_.millis();
  state_ = State::AWAY;
}

void Doorbell::end() {
  if (state_ > State::AWAY) socket_.close();
  state_ = State::OFF;
}

bool Doorbell::rang() {
  const bool was = rang_;
  rang_ = false;
  return was;
}

void Doorbell::lose() {
  socket_.close();
  state_ = State::AWAY;
  since_ = port_.millis();
  wait_ = wait_ ? wait_ * 2 : FIRST_WAIT_MS;
  if (wait_ > MOST_WAIT_MS) wait_ = MOST_WAIT_MS;
}

bool Doorbell::begin_packet(uint8_t kind, uint32_t body) {
  const uint8_t first[3] = {kind, static_cast<uint8_t>((body & 127) | (body > 127 ? 128 : 0)), static_cast<uint8_t>(body >> 7)};
  const uint32_t n = body > 127 ? 3 : 2;
  if (out_size_ + n + body > sizeof out_) return false;
  put(first, n);
  return true;
}

void Doorbell::put(const void* from, uint32_t n) {
  copy(out_ + out_size_, from, n);
  out_size_ += n;
}

void Doorbell::put16(uint32_t value) {
  const uint8_t two[2] = {static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value)};
  put(two, 2);
}

void Doorbell::put_text(const char* chars) {
  put16(static_cast<uint32_t>(length(chars)));
  put(chars, static_cast<uint32_t>(length(chars)));
}

void Doorbell::connect() {
  out_size_ = sent_ = 0;
  part_ = Part::KIND;
  const uint32_t id = static_cast<uint32_t>(length(device_id_)), token = static_cast<uint32_t>(length(token_));
  heard_ = pinged_ = port_.millis();
  state_ = State::CONNECTING;
  if (!begin_packet(CONNECT, 10 + 2 + id + 2 + id + 2 + token) || !socket_.open(broker_->host, broker_->port, broker_->tls))
    return lose();
  put_text("MQTT");
  put("\x04\xC2", 2);  // 3.1.1; user, password, clean session
  put16(KEEP_ALIVE_S);
  put_text(device_id_);
  put_text(device_id_);
  put_text(token_);
}

void Doorbell::packet(uint8_t kind, const uint8_t* body, uint32_t size) {
  heard_ = port_.millis();
  const uint32_t id = static_cast<uint32_t>(length(device_id_));
  switch (kind & 0xF0) {
    case CONNACK:
      if (state_ != State::CONNECTING || size != 2 || body[1]) return lose();
      state_ = State::SUBSCRIBING;
      if (!begin_packet(SUBSCRIBE, 2 + 2 + 8 + id + 4 + 1)) return lose();
      put16(1);
      put16(8 + id + 4);
      put("devices/", 8);
      put(device_id_, id);
      put("/ota\x01", 5);
      return;
    case SUBACK & 0xF0:
      if (state_ != State::SUBSCRIBING || size != 3 || body[2] & 0x80) return lose();
      state_ = State::LISTENS;
      wait_ = 0;
      rang_ = true;  // something may have been said while we were away
      return;
    case PUBLISH: {
      rang_ = true;
      const uint32_t topic = static_cast<uint32_t>(body[0]) << 8 | body[1];
      if (!(kind & 6)) return;
      // The receipt repeats the number behind the topic. Ours is short: a longer one was not asked for.
      if (topic + 4 > size || topic + 4 > sizeof in_ || !begin_packet(PUBACK, 2)) return lose();
      put(body + topic + 2, 2);
      return;
    }
    default: return;  // PINGRESP; nothing else concerns us
  }
}

void Doorbell::byte(uint8_t b) {
  if (part_ == Part::KIND) {
    kind_ = b;
    size_ = got_ = shift_ = 0;
    part_ = Part::SIZE;
    return;
  }
  if (part_ == Part::SIZE) {
    size_ |= static_cast<uint32_t>(b & 127) << shift_;
    shift_ += 7;
    if (b & 128 && shift_ < 28) return;
    if (b & 128 || size_ > MOST_PACKET) return lose();
    part_ = Part::BODY;
  } else {
    if (got_ < sizeof in_) in_[got_] = b;
    got_++;
  }
  if (got_ < size_) return;
  part_ = Part::KIND;
  for (uint32_t k = got_; k < 4; k++) in_[k] = 0;
  packet(kind_, in_, got_);
}

void Doorbell::receive() {
  uint8_t some[64];
  const int n = socket_.receive(some, sizeof some);
  if (n < 0) return lose();
  for (int k = 0; k < n && state_ > State::AWAY; k++) byte(some[k]);
}

void Doorbell::step() {
  const uint32_t now = port_.millis();
  if (state_ == State::OFF) return;
  if (state_ == State::AWAY) {
    if (now - since_ >= wait_) connect();
    return;
  }
  if (sent_ < out_size_) {
    const int n = socket_.send(out_ + sent_, out_size_ - sent_);
    if (n < 0) return lose();
    sent_ += static_cast<uint32_t>(n);
    if (sent_ == out_size_) sent_ = out_size_ = 0;
  }
  receive();
  if (state_ == State::LISTENS && now - pinged_ > KEEP_ALIVE_S * 500) {
    pinged_ = now;
    if (!begin_packet(PING, 0)) lose();
  }
  const uint32_t patience = state_ == State::LISTENS ? KEEP_ALIVE_S * 1500 : ANSWER_MS;
  if (state_ > State::AWAY && port_.millis() - heard_ > patience) lose();
}

}  // namespace skylift
