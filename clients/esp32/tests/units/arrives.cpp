// Updates that arrive, whatever the way is like.
#include "check.hpp"
#include "story.hpp"

using namespace skylift;

class PlainHooks final : public Hooks {};

class NoFiber final : public Fiber {
 public:
  bool start(void (*)(void*), void*) override { return false; }
  void resume() override {}
  void yield() override {}
  void stop() override {}
};

static void an_update_arrives() {
  Story whole;
  CHECK(whole.updated() && whole.boots == 2);
  Story slow;
  slow.hooks.ready = false;
  slow.config.poll_seconds = 1;
  CHECK(slow.updated());
  Story by_delta;
  by_delta.answers.check = desk::contents(world.folder + "/check-delta.json");
  CHECK(by_delta.updated());
  Story no_fiber;
  no_fiber.answers.check = by_delta.answers.check;
  no_fiber.has_fiber = false;
  CHECK(no_fiber.updated());
  Story timeless;
  timeless.now = 0;
  CHECK(timeless.updated());
  Story early;
  early.now = 1000;
  early.config.built = world.now;
  CHECK(early.updated());
}

static void downloads_go_on_where_they_broke() {
  Story plain;
  PlainHooks hooks;
  plain.own_hooks = &hooks;
  CHECK(plain.updated());
  Story pieces;  // of a delta too, with reports between its pieces
  pieces.answers.check = desk::contents(world.folder + "/check-delta.json");
  pieces.each = [](desk::MemoryPort& p, Client&) { p.piece = 7; };
  CHECK(pieces.updated());
  Story cut = Story();
  cut.answers.check = pieces.answers.check;
  for (auto& [path, body] : cut.answers.files) {
    if (body.compare(0, 4, "SKD2") != 0) continue;
    cut.edit(cut.answers.check, "\"size\": " + std::to_string(body.size()), "\"size\": 90");
    body.resize(90);
  }
  CHECK(cut.updated());
  Story slow;
  slow.config.download_seconds = 400;
  slow.each = [](desk::MemoryPort& p, Client& c) { p.piece = 1, p.read_ms = c.state() == State::FETCH ? 500 : 0; };
  slow.polls = 60;
  CHECK(slow.failed(Reason::DOWNLOAD_ERROR, "deadline"));
  Story steady;  // slow, but above the least
  steady.config.least_bytes_a_second = 1;
  steady.each = [](desk::MemoryPort& p, Client& c) { p.piece = 64, p.read_ms = c.state() == State::FETCH ? 500 : 0; };
  CHECK(steady.updated());
  for (bool damaged : {false, true}) {  // a restart in the middle; and what stood there already was damaged
    Story twice;
    twice.config.save_every = 4096;
    bool restarted = false;
    twice.each = [&](desk::MemoryPort& p, Client& c) {
      const uint8_t zero[64] = {0};
      if (restarted || c.state() != State::FETCH || twice.flash.at(twice.flash.slot(1))[14000] == 0xFF) return;
      if (damaged) twice.flash.write(twice.flash.slot(1) + 2000, zero, sizeof zero);
      restarted = p.wants_restart = true;
    };
    CHECK(twice.updated() && twice.boots == 3);
  }
}

static void a_server_without_resume_is_read_past() {
  Story story;
  story.each = [](desk::MemoryPort& port, Client&) { port.no_ranges = true; };
  CHECK(story.updated());
}

static void deltas_that_do_not_work_out_cost_time_only() {
  const std::string check = desk::contents(world.folder + "/check-delta.json");
  for (int kind = 0; kind < 7; kind++) {
    Story story;
    story.answers.check = check;
    for (auto& [path, body] : story.answers.files) {
      if (body.compare(0, 4, "SKD2") != 0) continue;
      if (kind == 0) body[body.size() / 2] ^= 0x40;
      if (kind == 1) body.resize(40);
      if (kind == 2) body[0] = 'X';
      if (kind == 3) body[30] ^= 1;
      if (kind == 4) body[4] = static_cast<char>((body[4] & 15) | 0x30);
      if (kind == 5) body[10] ^= 1;
      if (kind == 6) body = "";
    }
  
    CHECK(story.updated());
  }
}

static void a_decoder_without_a_stack_says_so() {
  NoFiber none;
  DeltaRun delta;
  static uint64_t memory[DELTA_MEMORY / 8];
  const uint8_t base[4] = {0}, digest[32] = {0};
  delta.begin(none, base, 4, digest, memory, 100);
  CHECK(delta.step() == DeltaRun::Want::FAILED && std::string(delta.why()).find("memory") != std::string::npos);
  delta.end();
}

static void an_image_of_any_form_may_run() {
  // The factory's image is not an Espressif one, or a broken one: no digest is told, no delta taken.
  for (int kind = 0; kind < 4; kind++) {
    Story story;
    story.loader.believes = true;
    const uint8_t zero[4] = {0};
    const uint32_t at = story.flash.slot(0);
    if (kind == 0) story.flash.write(at, zero, 1);
    if (kind == 1) story.flash.write(at + 1, zero, 1);
    if (kind == 2) story.flash.write(at + 23, zero, 1);  // no digest behind it
    if (kind == 3) {
      std::vector<uint8_t> sector(story.flash.at(at), story.flash.at(at) + desk::SECTOR);
      std::memset(&sector[28], 0x7F, 4);
      story.flash.erase(at);
      story.flash.write(at, sector.data(), desk::SECTOR);
    }
    story.answers.check = desk::contents(world.folder + "/check-delta.json");
    CHECK(story.updated());
  }
}

static void reports_wait_until_they_are_heard() {
  Story story;
  int tries = 0;
  story.polls = 30;
  story.each = [&](desk::MemoryPort& p, Client& c) {
    if (story.version == world.new_version && c.state() == State::REPORT && tries++ < 40) p.status_for["/api/updates/status"] = 500;
    else p.status_for.erase("/api/updates/status");
  };
  CHECK(story.run(2000000) && !story.reports.empty() && story.reports.back() == "complete");
  Story never;
  never.each = [](desk::MemoryPort& p, Client&) { p.status_for["/api/updates/status"] = 409; };
  CHECK(never.run() && never.version == world.new_version);
}

static void rings_and_pauses() {
  Story story;
  story.answers.check = "";
  uint32_t rings = 0;
  story.polls = 5;
  story.each = [&](desk::MemoryPort&, Client& c) {
    if (c.state() == State::REST && rings++ < 3) c.ring();
  };
  CHECK(story.run() && story.reports.empty());
}

static void an_enrolled_device_keeps_its_token() {
  Story story;
  story.config.token = "";
  story.config.claim = "clm";
  CHECK(story.updated());
  Story refused;
  refused.config.token = "";
  refused.config.claim = "clm";
  refused.each = [](desk::MemoryPort& p, Client&) { p.status_for["/api/enroll"] = 403; };
  CHECK(refused.run() && refused.reports.empty());
  Story worn;
  worn.config.token = "";
  worn.config.claim = "clm";
  worn.flash.worn = true;
  CHECK(worn.run() && worn.reports.empty());
}

// --- words of health ------------------------------------------------------------------------------------------------

class Numbers final : public Hooks {
 public:
  bool healthy() override { return false; }
  void metrics(Metrics& to) override {
    to.add(std::string(1000, 'x').c_str(), 1);  // none of ours: it is left out
    to.add("a", 3312, 3);
    to.add("b", -5, 2);
    to.add("c", INT32_MIN);
    for (int k = 0; k < 9; k++) to.add("d", k);
  }
};

static void it_says_how_it_is() {
  Numbers hooks;
  Story story;
  std::string word;
  int words = 0;
  story.own_hooks = &hooks;
  story.answers.check = "";
  story.polls = 4;
  story.config.health_seconds = 700;
  story.each = [&](desk::MemoryPort& p, Client&) {
    if (p.word.empty()) return;
    word = p.word;
    p.word.clear();
    words++;
  };
  CHECK(story.run() && words == 2);  // 300 seconds between two checks
  CHECK(word == "{\"healthy\":false,\"metrics\":{\"a\":3.312,\"b\":-0.05,\"c\":-2147483648,\"d\":0,\"d\":1,\"d\":2,\"d\":3,\"d\":4}}");
  Story silent;
  silent.config.health_seconds = 0;
  silent.each = [&](desk::MemoryPort& p, Client&) { words += !p.word.empty(); };
  words = 0;
  CHECK(silent.updated() && !words);
  Story refused;  // what nobody hears stops nothing
  refused.each = [](desk::MemoryPort& p, Client&) { p.status_for["/api/devices/dev-1/health"] = 404; };
  CHECK(refused.updated());
  Story unheard;
  unheard.each = [](desk::MemoryPort& p, Client& c) { p.unreachable = c.state() == State::HEALTH; };
  CHECK(unheard.updated());
}

void arrives_chapter() {
  an_update_arrives();
  downloads_go_on_where_they_broke();
  a_server_without_resume_is_read_past();
  deltas_that_do_not_work_out_cost_time_only();
  a_decoder_without_a_stack_says_so();
  an_image_of_any_form_may_run();
  reports_wait_until_they_are_heard();
  rings_and_pauses();
  an_enrolled_device_keeps_its_token();
  it_says_how_it_is();
}
