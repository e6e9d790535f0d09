// What must survive a power cut.
#include "check.hpp"
#include "script.hpp"
#include "skylift/store.hpp"

using namespace skylift;

struct Small {
  uint32_t value;
};

static void a_torn_record_costs_its_news_only() {
  desk::Flash flash(2 * desk::SECTOR);
  desk::BootLoader loader(flash);
  Clock* port = new Clock(flash, loader);
  Record<Small> record;
  CHECK(!load(*port, "offset", record) && !record.body.value);
  for (uint32_t value = 1; value <= 3; value++) {
    record.body.value = value;
    CHECK(save(*port, "offset", record));
  }
  CHECK(load(*port, "offset", record) && record.body.value == 3);
  const uint8_t zero[40] = {0};
  flash.write(5 * desk::SECTOR + 24, zero, 16);  // the newer copy (3 is odd: b)
  CHECK(load(*port, "offset", record) && record.body.value == 2);
  record.body.value = 9;
  CHECK(save(*port, "offset", record) && load(*port, "offset", record) && record.body.value == 9);
  struct Grown {
    uint32_t value, more;
  };
  Record<Grown> grown;
  grown.body.more = 5;
  CHECK(load(*port, "offset", grown) && grown.body.value == 9 && !grown.body.more);
  flash.worn = true;
  CHECK(!save(*port, "offset", record));
  delete port;
}

void records_chapter() {
  a_torn_record_costs_its_news_only();
}
