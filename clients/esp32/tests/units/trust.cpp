// Signed files: bounds, rotation, the log; a device without roots.
#include "check.hpp"
#include "story.hpp"
#include "skylift/trust.hpp"

using namespace skylift;

static void orders_and_roles_are_bounded() {
  Keys keys = {};
  Seen seen = {};
  Fault fault = {};
  Order order = {};
  const Device device = {"dev-1", "sensor-v2", "sensor"};
  CHECK(take_root(Repo::IMAGE, Story::as_text(world.image_root), true, keys, seen, fault));
  CHECK(!take_root(Repo::DIRECTOR, Story::as_text(world.image_root), true, keys, seen, fault));
  CHECK(take_root(Repo::DIRECTOR, Story::as_text(world.director_root), true, keys, seen, fault));
  CHECK(!take_root(Repo::IMAGE, Story::as_text(world.image_root), false, keys, seen, fault) && fault.reason == Reason::METADATA_ROLLBACK);
  const std::string huge(20000, ' ');
  CHECK(!read_order(Story::as_text(huge), device, Text(), keys, seen, 1, order, fault) && std::strstr(fault.words, "larger"));
  CHECK(!read_role(Story::as_text(huge), device, keys, seen, 0, 1, order, fault) && std::strstr(fault.words, "vouched"));
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
  story.file("log/compact") = desk::contents(world.folder + "/proofs-rotated.json");
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

// --- the log ---------------------------------------------------------------------------------------------------------

// A device that was made when the log had three entries.
struct Late : Story {
  const std::string root = desk::contents(world.folder + "/pinned.root");
  Late() {
    config.log_size = 3;
    config.log_root = reinterpret_cast<const uint8_t*>(root.data());
    file("log/compact") = desk::contents(world.folder + "/proofs-since.json");
  }
};

static void a_log_goes_on_from_the_one_that_is_known() {
  Late late;
  CHECK(late.updated());
  static const uint8_t other[32] = {7};
  Late forks;
  forks.config.log_root = other;
  CHECK(forks.failed(Reason::SIGNATURE_INVALID, "does not go on"));
  Late shrinks;
  shrinks.config.log_size = 99;
  CHECK(shrinks.failed(Reason::METADATA_ROLLBACK, "shorter"));
  Late same;  // as long as the known one, and not the same
  same.config.log_size = 6;
  CHECK(same.failed(Reason::SIGNATURE_INVALID, "does not go on"));
  Late alone;  // another's proofs
  alone.file("log/compact") = world.answers.files.at("/api/log/compact");
  CHECK(alone.failed(Reason::SIGNATURE_INVALID, "does not go on"));
  const std::string unlogged = desk::contents(world.folder + "/order-unlogged.json");
  Story older;  // a server that keeps none yet
  older.file("order.json") = unlogged;
  CHECK(older.updated());
  Late hidden;
  hidden.file("order.json") = unlogged;
  CHECK(hidden.failed(Reason::SIGNATURE_INVALID, "does not show"));
}

static void a_log_has_what_is_ordered() {
  for (const char* body : {"", "<html>", "{}", "[]", "{\"consistency\":{},\"inclusions\":[]}", "{\"consistency\":[],\"inclusions\":[]}",
                           "{\"consistency\":[],\"inclusions\":[{\"index\":6,\"proof\":[]}]}", "{\"consistency\":[],\"inclusions\":[{\"index\":0}]}",
                           "{\"consistency\":[],\"inclusions\":[{\"index\":0,\"proof\":[\"00\"]}]}"}) {
    Story story;
    story.file("log/compact") = body;
    CHECK(story.failed(Reason::SIGNATURE_INVALID, "the log does not"));
  }
  Story more;  // one place too many
  const std::string first = more.file("log/compact"), list = "\"inclusions\":[";
  const size_t from = first.find(list) + list.size(), to = first.find("},", from) + 2;
  more.file("log/compact").insert(from, first.substr(from, to - from));
  CHECK(more.failed(Reason::SIGNATURE_INVALID, "does not have"));
}

static void a_log_that_is_away_is_waited_for() {
  Story story;
  story.polls = 6;
  int tries = 0;
  story.each = [&](desk::MemoryPort& p, Client& c) {
    if (c.state() == State::LOG && tries++ < 3) p.status_for["/api/log/compact"] = 503;
    else p.status_for.erase("/api/log/compact");
  };
  CHECK(story.updated());
  Story worn;
  worn.each = [&worn](desk::MemoryPort&, Client& c) { worn.flash.worn |= c.state() == State::LOG; };
  CHECK(worn.failed(Reason::INSTALL_ERROR, "key-value store"));
}

void trust_chapter() {
  orders_and_roles_are_bounded();
  roots_rotate();
  a_device_without_roots_trusts_nobody();
  a_log_goes_on_from_the_one_that_is_known();
  a_log_has_what_is_ordered();
  a_log_that_is_away_is_waited_for();
}
