// Trials and rollbacks.
#include "check.hpp"
#include "story.hpp"

using namespace skylift;

static void trials_that_do_not_pass_fall_back() {
  for (int kind = 0; kind < 3; kind++) {
    Story story;
    if (kind == 0) story.hooks.sensors_say = Verdict::FAIL;
    if (kind == 1) story.hooks.mqtt_says = Verdict::WAIT;
    if (kind == 2) story.each = [&story](desk::MemoryPort& p, Client&) { p.unreachable = story.loader.pending(); };
    CHECK(story.run(400000) && story.reports == std::vector<std::string>{"rolled_back"} && story.version == world.old_version);
  }
}

static void a_journal_that_was_lost_loses_no_device() {
  // On the trial boot the key-value store is empty: the image is judged, confirmed, and at the next check reported.
  Story story;
  bool wiped = false;
  story.answers.image_version = "never";  // the server does not know yet
  story.each = [&](desk::MemoryPort&, Client&) {
    if (story.loader.pending() && !wiped) {
      for (uint32_t k = 2; k < 2 + desk::KEYS; k++) story.flash.erase(k * desk::SECTOR);
      wiped = true;
    }
  };
  // The client has read its records already: wipe before it begins.
  Story before;
  before.answers.image_version = "never";
  CHECK(before.run() && before.version == world.new_version);
  for (uint32_t k = 2; k < 2 + desk::KEYS; k++) before.flash.erase(k * desk::SECTOR);
  before.reports.clear();
  before.boots = 0;
  CHECK(before.run() && before.reports == std::vector<std::string>{"complete"} && before.version == world.new_version);
}

static void a_rollback_is_told() {
  Story story;
  CHECK(story.updated());
  for (uint32_t sector : {6u, 7u}) story.flash.erase(sector * desk::SECTOR);  // the floor it had confirmed
  bool asked = false;
  story.answers.check = "";
  story.reports.clear();
  story.boots = 0;
  story.each = [&](desk::MemoryPort&, Client& c) {
    if (!asked && c.state() == State::REST) asked = true, c.rollback();
  };
  CHECK(story.run() && story.version == world.old_version && story.reports == std::vector<std::string>{"rolled_back"});
}

static void a_rollback_is_judged_by_the_floor() {
  Story story;
  CHECK(story.updated());
  const uint32_t polls = story.polls;
  bool asked = false;
  story.each = [&](desk::MemoryPort&, Client& c) {
    if (!asked && c.state() == State::REST) asked = true, c.rollback();
  };
  story.boots = 0;
  story.polls = polls + 2;
  story.answers.check = "";
  CHECK(story.run() && story.version == world.new_version);  // its floor rose to 1, the other image is at 0
  CHECK(story.reports == std::vector<std::string>{"complete"});
  Story empty;  // nothing in the other slot
  bool once = false;
  empty.answers.check = "";
  empty.each = [&](desk::MemoryPort&, Client& c) {
    if (!once && c.state() == State::REST) once = true, c.rollback();
  };
  CHECK(empty.run() && empty.untouched());
}

void trials_chapter() {
  trials_that_do_not_pass_fall_back();
  a_journal_that_was_lost_loses_no_device();
  a_rollback_is_told();
  a_rollback_is_judged_by_the_floor();
}
