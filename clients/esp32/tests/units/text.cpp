// Text, moments, JSON.
#include <cstring>
#include <initializer_list>
#include <string>
#include <utility>

#include "check.hpp"
#include "skylift/trust.hpp"

using namespace skylift;

static void text_is_built_within_its_room() {
  char small[8];
  Line line(small, sizeof small);
  line.put("abc-").number(12).put("xyz");
  CHECK(!line.whole() && std::string(small) == "abc-12x");
  char room[128];
  Line(room, sizeof room).quoted("a\"b\\c\nd\x7f");
  CHECK(std::string(room) == "\"a\\\"b\\\\c d \"");
  Line(room, sizeof room).escaped("aZ9-._~ +/");
  CHECK(std::string(room) == "aZ9-._~%20%2b%2f");
  Line(room, sizeof room).number(UINT32_MAX).number(0);
  CHECK(std::string(room) == "42949672950");
  uint32_t value;
  CHECK(from_decimal(text("18"), 18, &value) && value == 18);
  CHECK(!from_decimal(text("19"), 18, &value) && !from_decimal(text(""), 9, &value));
  CHECK(!from_decimal(text("1x"), 99, &value) && !from_decimal(text("12345678901234567890"), UINT32_MAX, &value));
  CHECK(!from_decimal(text("4294967296"), UINT32_MAX, &value) && from_decimal(text("4294967280"), UINT32_MAX, &value) && value == 4294967280u);
  uint8_t bytes[2];
  CHECK(from_hex(text("aB0f"), bytes, 2) && bytes[0] == 0xAB);
  CHECK(!from_hex(text("aBg0"), bytes, 2) && !from_hex(text("ab"), bytes, 2) && !from_hex(text("a/b0"), bytes, 2));
  char name[4];
  CHECK(keep(text("abc"), name, 4) && !keep(text("abcd"), name, 4) && !name[0]);
  Fault fault = {};
  CHECK(!fault && !fault.set(Reason::NO_SPACE, std::string(200, 'x').c_str()) && fault && std::strlen(fault.words) == WORDS - 1);
  CHECK(std::string(name_of(Reason::BELOW_SECURITY_FLOOR)) == "below_security_floor");
  CHECK(crc32("123456789", 9) == 0xCBF43926u);
}

static void moments_are_read() {
  uint32_t moment;
  const std::pair<const char*, uint32_t> known[] = {{"1970-01-01T00:00:00Z", 0}, {"2026-11-28T12:00:00Z", 1795867200}, {"2028-02-29T23:59:59Z", 1835481599},
                                                    {"1969-12-31T00:00:00Z", 0}, {"0000-01-01T00:00:00Z", 0}, {"2106-02-06T00:00:00Z", 4294857600u},
                                                    {"9999-12-31T00:00:00Z", 4294857600u}};
  for (const auto& [said, seconds] : known) CHECK(seconds_of(text(said), &moment) && moment == seconds);
  for (const char* bad : {"2026-11-28T12:00:00", "2026-11-28 12:00:00Z", "2026-13-28T12:00:00Z", "2026-11-00T12:00:00Z",
                          "2026-11-28T24:00:00Z", "2026-11-28T12:60:00Z", "2026-11-28T12:00:61Z", "2x26-11-28T12:00:00Z",
                          "2026/11-28T12:00:00Z", "2026-11/28T12:00:00Z", "2026-11-28T12-00:00Z", "2026-11-28T12:00-00Z",
                          "2026-11-28T12:00:00z", "202x-11-28T12:00:00Z", "2026-00-28T12:00:00Z", "2026-11-32T12:00:00Z"})
    CHECK(!seconds_of(text(bad), &moment));
}

static void json_is_walked() {
  const Json all = Json::parse(text(" { \"a\" : [ 1, \"x\\\"y\", {\"b\":true} , null, -2.5e+3 ] , \"n\" : 7 } "));
  CHECK(all.is_object() && all["a"].is_array() && !all["none"] && !all["a"]["x"]);
  int items = 0;
  for (Members each(all["a"]); each.next();) items++;
  CHECK(items == 5);
  uint32_t value = 0;
  CHECK(all["n"].number(9, &value) && value == 7 && !all["n"].number(6, &value) && !all["a"].number(9, &value));
  CHECK(!all["n"].string() && !all["n"].is_bool());
  Members none(all["n"]);
  CHECK(!none.next());
}

void text_chapter() {
  text_is_built_within_its_room();
  moments_are_read();
  json_is_walked();
}
