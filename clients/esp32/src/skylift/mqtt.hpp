// The doorbell: a subscriber of one topic, MQTT 3.1.1, as small as it gets. What it is told is never believed; it only
// makes the next check come sooner. A broker that is away does no harm.
#pragma once
#include "http1.hpp"

namespace skylift {

class Doorbell {
 public:
  // `token` is the password, the device's id the user. Strings stay the caller's.
  Doorbell(Socket& socket, Port& port) : socket_(socket), port_(port) {}
  void begin(const Server& broker, const char* device_id, const char* token);
  void step();
  bool rang();  // since the last time it was asked
  bool connected() const { return state_ == State::LISTENS; }
  void end();

 private:
  enum class State : uint8_t { OFF, AWAY, CONNECTING, SUBSCRIBING, LISTENS };
  void connect();
  void lose();
  void packet(uint8_t kind, const uint8_t* body, uint32_t size);
  bool begin_packet(uint8_t kind, uint32_t body);
  void put(const void* from, uint32_t n);
  void put16(uint32_t value);
  void put_text(const char* chars);
  void receive();
  void byte(uint8_t b);

  Socket& socket_;
  Port& port_;
  const Server* broker_ = nullptr;
  const char *device_id_ = "", *token_ = "";
  State state_ = State::OFF;
  uint8_t out_[320];
  uint32_t out_size_ = 0, sent_ = 0;
  uint8_t in_[96];  // of a packet's body, as much as is looked at
  uint8_t kind_ = 0;
  uint32_t size_ = 0, got_ = 0, shift_ = 0;
  enum class Part : uint8_t { KIND, SIZE, BODY } part_ = Part::KIND;
  uint32_t heard_ = 0, pinged_ = 0, wait_ = 0, since_ = 0;
  bool rang_ = false;
};

}  // namespace skylift
