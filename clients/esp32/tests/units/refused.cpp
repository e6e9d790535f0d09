// What is not right ends with its name, what may pass waits; the running image stays.
#include "check.hpp"
#include "story.hpp"

using namespace skylift;

static void what_is_not_right_is_named() {
  const std::string path = image_path();
  struct {
    Reason reason;
    const char* words;
    std::function<void(Story&)> wrong;
  } cases[] = {
      {Reason::HASH_MISMATCH, "not what was signed", [&](Story& s) { s.answers.files[path][9000] ^= 1; }},
      {Reason::DOWNLOAD_ERROR, "another length", [&](Story& s) { s.answers.files[path].resize(9000); }},
      {Reason::DOWNLOAD_ERROR, "another length", [&](Story& s) { s.answers.files[path] = "<html>no</html>"; }},
      {Reason::DOWNLOAD_ERROR, "does not give", [&](Story& s) { s.answers.files.erase(path); }},
      {Reason::DOWNLOAD_ERROR, "another host", [&](Story& s) { s.edit(s.answers.check, path, "https://evil.example/x"); }},
      {Reason::WRONG_HARDWARE, "another chip", [&](Story& s) { s.answers.files[path][12] ^= 9; }},
      {Reason::SIGNATURE_INVALID, "byte rule", [&](Story& s) { s.file("order.json") = "<html>"; }},
      {Reason::SIGNATURE_INVALID, "the order is not signed", [&](Story& s) { s.edit(s.file("order.json"), "\"attempt\":1", "\"attempt\":2"); }},
      {Reason::SIGNATURE_INVALID, "byte rule", [&](Story& s) { s.file("targets.json") = "{}"; }},
      {Reason::SIGNATURE_INVALID, "the release is not signed", [&](Story& s) { s.edit(s.file("2.sensor.json"), "\"1.1.0\"", "\"1.1.1\""); }},
      {Reason::SIGNATURE_INVALID, "byte rule", [&](Story& s) { s.file("2.sensor.json").pop_back(); }},
      {Reason::METADATA_EXPIRED, "order has expired", [&](Story& s) { s.now += 5 * 86400; }},
      {Reason::METADATA_EXPIRED, "expired", [&](Story& s) { s.config.built = s.now + 380 * 86400; }},
      {Reason::BELOW_SECURITY_FLOOR, "below", [&](Story& s) { s.config.security_version = 9; }},
      {Reason::SIGNATURE_INVALID, "for another device", [&](Story& s) { s.config.device_id = "dev-2"; s.answers.files["/director/dev-2/order.json"] = s.file("order.json"); }},
      {Reason::WRONG_HARDWARE, "other hardware", [&](Story& s) { s.config.device_type = "sensor-v3"; }},
      {Reason::SIGNATURE_INVALID, "nobody", [&](Story& s) { s.config.product = "boat"; s.answers.files["/image/2.boat.json"] = s.file("2.sensor.json"); }},
      {Reason::SIGNATURE_INVALID, "", [&](Story& s) { s.config.product = "camera"; s.answers.files["/image/2.camera.json"] = s.file("2.sensor.json"); }},
      {Reason::INSTALL_ERROR, "flash cannot be written", [&](Story& s) { s.flash.broken = true; }},
      {Reason::SIGNATURE_INVALID, "byte rule", [&](Story& s) { s.edit(s.answers.check, "\"director_root_version\": 1", "\"director_root_version\": 2"); s.answers.files["/director/dev-1/2.root.json"] = "{}"; }},
      {Reason::SIGNATURE_INVALID, "byte rule", [&](Story& s) { s.edit(s.answers.check, "\"root_version\": 1", "\"root_version\": 2"); s.answers.files["/image/2.root.json"] = "{}"; }},
  };
  int number = 0;
  for (const auto& one : cases) {
    Story story;
    one.wrong(story);
    if (!story.failed(one.reason, one.words)) failures++, std::printf("what_is_not_right: case %d (%s)\n", number, one.words);
    checks++;
    number++;
  }
}

static void what_may_pass_only_waits() {
  const std::string path = image_path();
  const std::function<void(Story&)> cases[] = {
      [](Story& s) { s.answers.check = "<html>"; },
      [](Story& s) { s.answers.check = "{\"update_available\":3}"; },
      [](Story& s) { s.answers.check = "{\"update_available\":true}"; },
      [](Story& s) { s.answers.check = "{\"update_available\":true,\"x\":\"" + std::string(9000, 'x') + "\"}"; },
      [](Story& s) { s.answers.files.erase("/director/dev-1/order.json"); },
      [](Story& s) { s.answers.files.erase("/image/1.targets.json"); },
      [](Story& s) { s.answers.files.erase("/image/2.sensor.json"); },
      [](Story& s) { s.file("2.sensor.json") = std::string(20000, ' '); },
      [](Story& s) { s.file("order.json") = std::string(5000, ' '); },
      [](Story& s) { s.edit(s.answers.check, "\"root_version\": 1", "\"root_version\": 3"); },
      [](Story& s) { s.edit(s.answers.check, "\"director_root_version\": 1", "\"director_root_version\": 3"); },
      [](Story& s) { s.hooks.battery = false; },
      [](Story& s) { s.each = [](desk::MemoryPort& p, Client&) { p.status_for["/api/updates/check"] = 503; p.retry_after = 7; }; },
      [](Story& s) { s.each = [](desk::MemoryPort& p, Client&) { p.status_for["/api/updates/check"] = 204; }; },
      [](Story& s) { s.each = [](desk::MemoryPort& p, Client&) { p.unreachable = true; }; },
      [](Story& s) { s.each = [](desk::MemoryPort& p, Client&) { p.breaks_head = true; }; },
      [](Story& s) { s.each = [](desk::MemoryPort& p, Client&) { p.silent = true; }; },
      [](Story& s) { s.each = [](desk::MemoryPort& p, Client&) { p.silent_body = true; }; },
      [](Story& s) { s.answers.breaks_every = 100; },
  };
  int number = 0;
  for (const auto& wrong : cases) {
    Story story;
    wrong(story);
    if (!story.run(400000) || !story.reports.empty() || !story.untouched()) failures++, std::printf("what_may_pass: case %d\n", number);
    checks++;
    number++;
  }
}

static void a_download_that_never_comes_is_given_up() {
  for (int kind = 0; kind < 4; kind++) {
    Story story;
    story.polls = 40;
    const std::string path = image_path();
    story.each = [kind, path](desk::MemoryPort& p, Client& c) {
      if (c.state() == State::FETCH) {
        if (kind == 0) p.status_for[path] = 500;
        if (kind == 1) p.silent = true;
        if (kind == 2) p.silent_body = true;
        if (kind == 3) p.unreachable = true;
      } else {
        p.silent = p.silent_body = p.unreachable = false;
      }
    };
    CHECK(story.run(3000000) && story.reports == std::vector<std::string>{"failed"} && story.untouched());
    if (story.reports != std::vector<std::string>{"failed"}) std::printf("  kind %d reports %zu words %s\n", kind, story.reports.size(), story.words.c_str());
  }
  Story slow;
  slow.config.download_seconds = 0;
  CHECK(slow.failed(Reason::DOWNLOAD_ERROR, "deadline"));
  Story redirected;
  const std::string path = image_path();
  redirected.each = [path](desk::MemoryPort& p, Client&) { p.status_for[path] = 302; };
  CHECK(redirected.failed(Reason::DOWNLOAD_ERROR, "redirects"));
}

static void the_server_may_end_an_update() {
  Story story;
  story.each = [](desk::MemoryPort& p, Client&) { p.ends_updates = true; };
  CHECK(story.run() && story.reports.empty() && story.untouched());
}

static void a_worn_store_begins_nothing() {
  Story story;
  story.flash.worn = true;
  CHECK(story.run() && story.untouched() && *story.flash.at(story.flash.slot(1)) == 0xFF);
  // And at every later save: whatever is under way ends as a failure, the old image stays or the new one is whole.
  for (State when : {State::ROLE, State::ROOM, State::FETCH, State::READ_BACK, State::ARM, State::REPORT}) {
    Story later;
    later.config.save_every = 4096;
    later.each = [&later, when](desk::MemoryPort&, Client& c) { later.flash.worn |= c.state() == when; };
    CHECK(later.run() && (later.version == world.old_version || later.version == world.new_version));
  }
}

static void boot_control_that_fails_is_named() {
  Story deaf;
  deaf.each = [](desk::MemoryPort& p, Client&) { p.boot_fails = true; };
  CHECK(deaf.failed(Reason::INSTALL_ERROR, "does not take"));
  Story unmarked;
  unmarked.each = [](desk::MemoryPort& p, Client&) { p.mark_fails = true; };
  CHECK(unmarked.run() && unmarked.version == world.old_version && unmarked.reports == std::vector<std::string>{"rolled_back"});
  Story unread;  // what cannot be read back is not what was signed
  unread.each = [](desk::MemoryPort& p, Client& c) { p.reads_fail = c.state() == State::READ_BACK; };
  CHECK(unread.failed(Reason::HASH_MISMATCH, "not what was signed"));
  Story unmapped;
  unmapped.answers.check = desk::contents(world.folder + "/check-delta.json");
  unmapped.each = [](desk::MemoryPort& p, Client&) { p.map_fails = true; };
  CHECK(unmapped.updated());
  Story later;  // it can be mapped when it is chosen, and not when it is needed
  later.answers.check = unmapped.answers.check;
  later.each = [](desk::MemoryPort& p, Client& c) { p.map_fails = c.state() == State::FETCH; };
  CHECK(later.updated());
}

void refused_chapter() {
  what_is_not_right_is_named();
  what_may_pass_only_waits();
  a_download_that_never_comes_is_given_up();
  the_server_may_end_an_update();
  a_worn_store_begins_nothing();
  boot_control_that_fails_is_named();
}
