// Signed files: bounds, rotation; a device without roots.
#include "check.hpp"
#include "story.hpp"
#include "skylift/trust.hpp"

using namespace skylift;

static void orders_and_roles_are_bounded() {
  Keys keys;
  Seen seen;
  Fault fault;
  Order order;
  const Device device = {"dev-1", "sensor-v2", "sensor"};
  CHECK(take_root(Repo::IMAGE, Story::as_text(world.image_root), true, 0, keys, seen, fault));
  CHECK(!take_root(Repo::DIRECTOR, Story::as_text(world.image_root), true, 0, keys, seen, fault));
  CHECK(take_root(Repo::DIRECTOR, Story::as_text(world.director_root), true, 0, keys, seen, fault));
  CHECK(!take_root(Repo::IMAGE, Story::as_text(world.image_root), false, 0, keys, seen, fault) && fault.reason == Reason::METADATA_ROLLBACK);
  const std::string huge(20000, ' ');
  CHECK(!read_order(Story::as_text(huge), device, Text(), keys, seen, 1, order, fault) && std::strstr(fault.words, "larger"));
  CHECK(!read_role(Story::as_text(huge), device, keys, seen, 0, 1, order, fault) && std::strstr(fault.words, "vouch"));
  const std::string path = "/director/dev-1/order.json", own = world.answers.files.at(path);
  CHECK(!read_order(Story::as_text(own), device, Text(), keys, seen, 0, order, fault) && fault.reason == Reason::METADATA_EXPIRED);
  CHECK(read_order(Story::as_text(own), device, Text(), keys, seen, world.now, order, fault) && order.any);
  CHECK(!read_order(Story::as_text(own), device, text("00"), keys, seen, world.now, order, fault) && fault.reason == Reason::METADATA_ROLLBACK);
  seen.order = 9;
  CHECK(!read_order(Story::as_text(own), device, Text(), keys, seen, world.now, order, fault) && fault.reason == Reason::METADATA_ROLLBACK);
}

static void roots_rotate() {
  Story story;
  story.edit(story.answers.check, "\"director_root_version\": 1", "\"director_root_version\": 2");
  story.edit(story.answers.check, "\"root_version\": 1", "\"root_version\": 2");
  CHECK(story.updated());
  Story far;  // a version that nobody can follow is not looked for
  far.edit(far.answers.check, "\"root_version\": 1", "\"root_version\": 999999");
  CHECK(far.updated());
  for (State when : {State::DIRECTOR_ROOT, State::IMAGE_ROOT, State::DELEGATION}) {
    Story worn;
    worn.answers.check = story.answers.check;
    worn.each = [&worn, when](desk::MemoryPort&, Client& c) { worn.flash.worn |= c.state() == when; };
    CHECK(worn.failed(Reason::INSTALL_ERROR, "key-value store"));
  }
}

static void a_device_without_roots_trusts_nobody() {
  Story story;
  story.config.director_root = text("{}");
  CHECK(!story.run(2000) && story.reports.empty() && story.untouched());
}

void trust_chapter() {
  orders_and_roles_are_bounded();
  roots_rotate();
  a_device_without_roots_trusts_nobody();
}
