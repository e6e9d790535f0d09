// The doorbell: a broker that listens, one that refuses, one that is away.
#include "check.hpp"
#include "script.hpp"
#include "skylift/mqtt.hpp"

using namespace skylift;

static void the_doorbell_rings_and_comes_back() {
  desk::Flash flash(2 * desk::SECTOR);
  desk::BootLoader loader(flash);
  Clock* clock = new Clock(flash, loader);
  Server broker;
  server_of("http://b:1883", broker);
  const std::string connack("\x20\x02\x00\x00", 4), suback("\x90\x03\x00\x01\x01", 5);
  const std::string publish0("\x30\x0d\x00\x0a" "devices/x/z", 15), ping("\xd0\x00", 2);
  std::string publish1("\x32\x10\x00\x0a" "devices/xx\x12\x34{}", 18);
  for (uint32_t piece : {1u, 1000u}) {
    Script script;
    script.ends = WAIT;
    script.piece = piece;
    Doorbell bell(script, *clock);
    bell.step();
    bell.begin(broker, "dev", "tok");
    script.answer = connack + suback;
    for (int k = 0; k < 200; k++) bell.step();
    CHECK(bell.connected() && bell.rang() && !bell.rang());
    CHECK(script.sent.find("devices/dev/ota") != std::string::npos);
    script.answer += publish0 + ping;
    for (int k = 0; k < 100; k++) bell.step();
    CHECK(bell.rang());
    script.answer += publish1;
    for (int k = 0; k < 100; k++) bell.step();
    CHECK(bell.rang() && script.sent.find(std::string("\x40\x02\x12\x34", 4)) != std::string::npos);
    clock->at += 31000;
    for (int k = 0; k < 100; k++) bell.step();
    CHECK(script.sent.find(std::string("\xc0\x00", 2)) != std::string::npos && bell.connected());
    clock->at += 100000;  // nobody answers the ping
    bell.step();
    CHECK(!bell.connected());
    bell.end();
  }
  // Brokers that refuse, speak nonsense, or are away: it tries again, ever later, and never rings.
  std::string long_topic("\x32\x94\x01\x00\x90", 5);
  long_topic += std::string(146, 'x');
  const std::string up = connack + suback;
  for (const std::string& bad : {std::string("\x20\x02\x00\x05", 4), suback, std::string("\x20\x03\x00\x00\x00", 5), connack + connack,
                                 connack + std::string("\x90\x03\x00\x01\x80", 5), connack + std::string("\x90\x02\x00\x01", 4),
                                 std::string("\x20\xff\xff\xff\xff\xff", 6), std::string("\x20\xff\xff\xff\x7f", 5),
                                 up + long_topic, up + std::string("\x32\x02\x00\x09", 4)}) {
    Script script;
    script.ends = WAIT;
    script.answer = bad;
    Doorbell bell(script, *clock);
    bell.begin(broker, "dev", "tok");
    bool connected = true;
    for (int k = 0; k < 12; k++) {
      bell.step();
      connected = bell.connected();
    }
    CHECK(!connected && script.opened == 1 && script.closed >= 1);
    for (int k = 0; k < 9; k++) {
      clock->at += 61000;
      bell.step();
      bell.step();
      bell.step();
    }
    CHECK(script.opened > 4);
    bell.end();
  }
  Script away;
  away.opens = false;
  Doorbell bell(away, *clock);
  bell.begin(broker, "dev", "tok");
  bell.step();
  bell.step();
  CHECK(away.opened == 1 && !bell.rang());
  Script ends;
  Doorbell other(ends, *clock);
  other.begin(broker, "dev", "tok");
  for (int k = 0; k < 4; k++) other.step();
  CHECK(!other.connected());
  ends.breaks_send = true;
  clock->at += 61000;
  other.step();
  other.step();
  CHECK(!other.connected());
  Doorbell wide(away, *clock);
  const std::string huge(400, 't');
  wide.begin(broker, "dev", huge.c_str());
  wide.step();
  CHECK(!wide.connected());
  delete clock;
}

void doorbell_chapter() {
  the_doorbell_rings_and_comes_back();
}
