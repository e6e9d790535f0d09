// The core's parts by themselves, and the client against a server in memory that does what no real one would.
// usage: units FOLDER (testkit/esp32scene.py writes it) [only]; prints one line for each failure.
#include <functional>
#include <sstream>

#include "cuts.hpp"
#include "skylift/crypto.hpp"
#include "skylift/http1.hpp"
#include "skylift/mqtt.hpp"
#include "skylift/store.hpp"

using namespace skylift;

static int failures, checks;
#define CHECK(x) (checks++, (x) ? (void)0 : (void)(failures++, std::printf("%s:%d: %s\n", __func__, __LINE__, #x)))

// --- bytes -------------------------------------------------------------------------------------------------------------

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
  uint64_t value;
  CHECK(from_decimal(text("18"), 18, &value) && value == 18);
  CHECK(!from_decimal(text("19"), 18, &value) && !from_decimal(text(""), 9, &value));
  CHECK(!from_decimal(text("1x"), 99, &value) && !from_decimal(text("12345678901234567890"), ~0ull, &value));
  uint8_t bytes[2];
  CHECK(from_hex(text("aB0f"), bytes, 2) && bytes[0] == 0xAB);
  CHECK(!from_hex(text("aBg0"), bytes, 2) && !from_hex(text("ab"), bytes, 2) && !from_hex(text("a/b0"), bytes, 2));
  char name[4];
  CHECK(keep(text("abc"), name, 4) && !keep(text("abcd"), name, 4) && !name[0]);
  Fault fault;
  CHECK(!fault && !fault.set(Reason::NO_SPACE, std::string(200, 'x').c_str()) && fault && std::strlen(fault.words) == WORDS - 1);
  CHECK(std::string(name_of(Reason::BELOW_SECURITY_FLOOR)) == "below_security_floor");
  CHECK(crc32("123456789", 9) == 0xCBF43926u);
}

static void moments_are_read() {
  CHECK(seconds_of(text("1970-01-01T00:00:00Z")) == 0);
  CHECK(seconds_of(text("2026-11-28T12:00:00Z")) == 1795867200);
  CHECK(seconds_of(text("2028-02-29T23:59:59Z")) == 1835481599);
  for (const char* bad : {"2026-11-28T12:00:00", "2026-11-28 12:00:00Z", "2026-13-28T12:00:00Z", "2026-11-00T12:00:00Z",
                          "2026-11-28T24:00:00Z", "2026-11-28T12:60:00Z", "2026-11-28T12:00:61Z", "2x26-11-28T12:00:00Z",
                          "2026/11-28T12:00:00Z", "2026-11/28T12:00:00Z", "2026-11-28T12-00:00Z", "2026-11-28T12:00-00Z",
                          "2026-11-28T12:00:00z", "202x-11-28T12:00:00Z", "2026-00-28T12:00:00Z", "2026-11-32T12:00:00Z"})
    CHECK(seconds_of(text(bad)) == -1);
}

static void json_is_walked() {
  const Json all = Json::parse(text(" { \"a\" : [ 1, \"x\\\"y\", {\"b\":true} , null, -2.5e+3 ] , \"n\" : 7 } "));
  CHECK(all.is_object() && all["a"].is_array() && !all["none"] && !all["a"]["x"]);
  int items = 0;
  for (Members each(all["a"]); each.next();) items++;
  CHECK(items == 5);
  uint64_t value = 0;
  CHECK(all["n"].number(9, &value) && value == 7 && !all["n"].number(6, &value) && !all["a"].number(9, &value));
  CHECK(!all["n"].string() && !all["n"].is_bool());
  Members none(all["n"]);
  CHECK(!none.next());
}

// --- a socket that plays what it is told, in pieces of every size ---------------------------------------------------------

class Script final : public Socket {
 public:
  bool open(const char*, uint16_t, bool) override {
    opened++;
    at = 0;
    return opens;
  }
  int send(const void* from, uint32_t n) override {
    if (breaks_send) return BROKEN;
    if (shy && (turn ^= 1)) return WAIT;
    const uint32_t part = n < piece ? n : piece;
    sent.append(static_cast<const char*>(from), part);
    return static_cast<int>(part);
  }
  int receive(void* to, uint32_t most) override {
    if (shy && (turn ^= 1)) return WAIT;
    uint32_t n = static_cast<uint32_t>(answer.size()) - at;
    if (!n) return ends;
    n = n < piece ? n : piece;
    n = n < most ? n : most;
    std::memcpy(to, answer.data() + at, n);
    at += n;
    return static_cast<int>(n);
  }
  void close() override { closed++; }
  std::string answer, sent;
  uint32_t piece = 1000000, at = 0;
  int ends = END, opened = 0, closed = 0, turn = 0;
  bool opens = true, shy = false, breaks_send = false;
};

struct Heard {
  int result = 0;
  Head head;
  std::string body;
};

static Heard hear(Script& script, const char* body = nullptr, uint32_t from = 0) {
  Server server;
  server_of("http://h:1", server);
  static Http1* http;
  Http1 one(script, server);
  http = &one;
  const Ask ask = {"GET", "/p", "tok", body, from, from ? "tag" : nullptr};
  Heard found;
  if (!http->open(ask)) {
    found.result = BROKEN;
    return found;
  }
  while ((found.result = http->head(found.head)) == WAIT) {
  }
  uint8_t some[300];
  while (found.result == 1 || found.result == WAIT || found.result > 0) {
    found.result = http->read(some, sizeof some);
    if (found.result > 0) found.body.append(reinterpret_cast<char*>(some), static_cast<size_t>(found.result));
    if (found.result < 0) break;
  }
  http->close();
  http->close();
  return found;
}

static void http_answers_are_read_however_they_are_cut() {
  const std::string long_line(5000, 'x');
  struct {
    const char* what;
    std::string answer;
    int result, status;
    std::string body;
  } cases[] = {
      {"a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloREST", END, 200, "hello"},
      {"until the end", "HTTP/1.0 200 OK\r\n\r\nhello", END, 200, "hello"},
      {"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n", END, 200, "hello0123456789"},
      {"chunks, and a length that lies", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", END, 200, "hi"},
      {"a length after chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\nhi\r\n0\r\n\r\n", END, 200, "hi"},
      {"100 first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", END, 404, ""},
      {"204", "HTTP/1.1 204 No\r\n\r\nxx", END, 204, ""},
      {"304", "HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\nxx", END, 304, ""},
      {"a long header", "HTTP/1.1 200 OK\r\nX: " + long_line + "\r\nContent-Length: \t2 \t\r\n\r\nok", END, 200, "ok"},
      {"cut in its body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", BROKEN, 200, "hello"},
      {"cut in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", BROKEN, 200, "he"},
      {"cut between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", BROKEN, 200, "he"},
      {"no line end behind a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nheXX\r\n", BROKEN, 200, "he"},
      {"a chunk of no size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", BROKEN, 200, ""},
      {"a chunk of any size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", BROKEN, 200, ""},
      {"a chunk and rubbish", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2x\r\n", BROKEN, 200, ""},
      {"a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", END, 200, ""},
      {"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", BROKEN, 0, ""},
      {"no status", "HTTP/1.1 abc OK\r\n\r\n", BROKEN, 0, ""},
      {"a small status", "HTTP/1.1 099 OK\r\n\r\n", BROKEN, 0, ""},
      {"nothing", "", BROKEN, 0, ""},
      {"an endless head", "HTTP/1.1 200 OK\r\nX: " + long_line + long_line, BROKEN, 200, ""},
  };
  for (const auto& one : cases)
    for (uint32_t piece : {1u, 7u, 1000000u})
      for (bool shy : {false, true}) {
        Script script;
        script.answer = one.answer;
        script.piece = piece;
        script.shy = shy;
        const Heard found = hear(script, shy ? "{}" : nullptr);
        if (found.result != one.result || found.head.status != one.status || found.body != one.body)
          failures++, std::printf("http: %s in pieces of %u: %d %d '%s'\n", one.what, piece, found.result, found.head.status, found.body.c_str());
        checks++;
      }
}

static void http_heads_tell_what_the_client_needs() {
  Script script;
  script.answer = "HTTP/1.1 206 P\r\nContent-Range: bytes 10-19/300\r\nRetry-After: 17\r\nContent-Length: 2\r\n\r\nok";
  Heard found = hear(script, nullptr, 10);
  CHECK(found.head.from == 10 && found.head.total == 300 && found.head.retry_after == 17 && found.head.length == 2);
  CHECK(script.sent.find("Range: bytes=10-\r\nIf-Range: \"tag\"\r\n") != std::string::npos);
  CHECK(script.sent.find("Authorization: Bearer tok\r\n") != std::string::npos);
  for (const char* range : {"bytes */300", "bytes x-9/300", "bytes 1-9/*", "items 1-9/300", "bytes 5"}) {
    script.answer = std::string("HTTP/1.1 206 P\r\nContent-Range: ") + range + "\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n";
    found = hear(script);
    CHECK(found.head.from == 0 && found.head.total == 0 && found.head.retry_after == 0);
  }
  script.breaks_send = true;
  CHECK(hear(script).result == BROKEN);
  script.opens = false;
  CHECK(hear(script).result == BROKEN);
}

static void addresses_are_read() {
  Server s;
  CHECK(server_of("http://a.b", s) && s.port == 80 && !s.tls && std::string(s.host) == "a.b");
  CHECK(server_of("https://a.b/", s) && s.port == 443 && s.tls);
  CHECK(server_of("https://a.b:8443", s) && s.port == 8443);
  for (const char* bad : {"", "ftp://a", "http://", "https://", "http://:80", "http://a:0", "http://a:99999", "http://a:x", "http://a/b", "a.b"})
    CHECK(!server_of(bad, s));
  CHECK(!server_of(("http://" + std::string(200, 'a')).c_str(), s));
}

// --- the doorbell --------------------------------------------------------------------------------------------------------------

class Clock final : public desk::DeskPort {
 public:
  Clock(desk::Flash& f, desk::BootLoader& l) : DeskPort(f, l) {}
  bool http_open(const Ask&) override { return false; }
  int http_head(Head&) override { return BROKEN; }
  int http_read(uint8_t*, uint32_t) override { return BROKEN; }
  void http_close() override {}
  uint32_t millis() override { return at; }
  int64_t now() override { return 0; }
  void random(uint8_t*, uint32_t) override {}
  void log(const char*) override {}
  uint32_t at = 0;
};

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

// --- records ---------------------------------------------------------------------------------------------------------------------

struct Small {
  uint32_t value = 7;
};

static void a_torn_record_costs_its_news_only() {
  desk::Flash flash(2 * desk::SECTOR);
  desk::BootLoader loader(flash);
  Clock* port = new Clock(flash, loader);
  Record<Small> record;
  CHECK(!load(*port, "offset", record) && record.body.value == 7);
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
  flash.worn = true;
  CHECK(!save(*port, "offset", record));
  delete port;
}

// --- the client against a server that does as it is told -----------------------------------------------------------------------------

struct World {
  desk::Answers answers;
  std::string old_image, new_image, image_root, director_root, folder;
  std::string id, type, product, old_version, new_version;
  int64_t now = 0;
};
static World world;

class StoryHooks final : public Hooks {
 public:
  Verdict sensors() override { return sensors_say; }
  Verdict mqtt() override { return mqtt_says; }
  bool battery_is_good() override { return battery; }
  bool may_restart() override { return ready || !--patience; }
  Verdict sensors_say = Verdict::PASS, mqtt_says = Verdict::PASS;
  bool battery = true, ready = true;
  int patience = 3;
};

// One device, some boots, until it rests at the server's pace (or `most` steps).
struct Story {
  desk::Answers answers = world.answers;
  desk::Flash flash{160 << 10};
  desk::BootLoader loader{flash};
  StoryHooks hooks;
  Config config;
  std::string version;
  std::vector<std::string> reports;
  int64_t now = world.now;
  int boots = 0;
  bool has_fiber = true;
  uint32_t polls = 3;
  Hooks* own_hooks = nullptr;
  std::function<void(desk::MemoryPort&, Client&)> each;  // at every step
  std::string words;      // of the last fault
  Reason reason = Reason::NONE;

  Story() {
    loader.provision(world.old_image);
    config.device_id = world.id.c_str();
    config.device_type = world.type.c_str();
    config.product = world.product.c_str();
    config.token = "t";
    config.image_root = as_text(world.image_root);
    config.director_root = as_text(world.director_root);
    config.trial_seconds = 30;
  }
  static Text as_text(const std::string& some) { return {some.data(), static_cast<uint32_t>(some.size())}; }

  // True when it came to rest.
  bool run(uint32_t most = 60000) {
    while (boots++ < 12) {
      const int slot = loader.boot();
      if (slot < 0) return false;
      const desk::AppDescription app = desk::described(flash.at(flash.slot(slot)));
      version = app.version;
      config.version = version.c_str();
      desk::MemoryPort* port = new desk::MemoryPort(flash, loader, answers);
      Client* client = new Client(*port, own_hooks ? *own_hooks : hooks);
      port->when = now;
      port->has_fiber = has_fiber;
      client->begin(config);
      uint32_t rests = 0, k = 0;
      for (State before = State::HALT; k < most && !port->wants_restart; k++) {
        if (each) each(*port, *client);
        port->pass(client->step());
        if (client->fault()) reason = client->fault().reason, words = client->fault().words;
        if (client->state() == State::REST && before != State::REST && ++rests == polls && !loader.pending()) break;
        before = client->state();
      }
      reports.insert(reports.end(), port->reports.begin(), port->reports.end());
      const bool again = port->wants_restart;
      client->finish();
      delete client;
      delete port;
      if (!again) return k < most;
    }
    return false;
  }
  bool untouched() const { return version == world.old_version && loader.running() == 0 && !std::memcmp(flash.at(flash.slot(0)), world.old_image.data(), world.old_image.size()); }
  bool failed(Reason why, const char* said) {
    const bool good = run() && reports == std::vector<std::string>{"failed"} && reason == why && words.find(said) != std::string::npos && untouched();
    if (!good) std::printf("  reports %zu %s, reason %s, words '%s', version %s\n", reports.size(), reports.empty() ? "" : reports[0].c_str(), name_of(reason), words.c_str(), version.c_str());
    return good;
  }
  bool updated() { return run() && reports == std::vector<std::string>{"complete"} && version == world.new_version; }
  std::string& file(const char* part) {
    for (auto& [path, body] : answers.files)
      if (path.find(part) != std::string::npos) return body;
    std::abort();
  }
  void edit(std::string& where, const std::string& from, const std::string& to) {
    const size_t at = where.find(from);
    if (at == std::string::npos) std::abort();
    where.replace(at, from.size(), to);
  }
};

static std::string image_path() {
  for (const auto& [path, body] : world.answers.files)
    if (body == world.new_image) return path;
  std::abort();
}

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

class PlainHooks final : public Hooks {};

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

class NoFiber final : public Fiber {
 public:
  bool start(void (*)(void*), void*) override { return false; }
  void resume() override {}
  void yield() override {}
  void stop() override {}
};

static void a_decoder_without_a_stack_says_so() {
  NoFiber none;
  DeltaRun delta;
  static uint64_t memory[DELTA_MEMORY / 8];
  const uint8_t base[4] = {0}, digest[32] = {0};
  delta.begin(none, base, 4, digest, memory, 100);
  CHECK(delta.step() == DeltaRun::Want::FAILED && std::string(delta.why()).find("memory") != std::string::npos);
  delta.end();
}

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
      {Reason::SIGNATURE_INVALID, "not signed by the server", [&](Story& s) { s.edit(s.file("order.json"), "\"attempt\":1", "\"attempt\":2"); }},
      {Reason::SIGNATURE_INVALID, "byte rule", [&](Story& s) { s.file("targets.json") = "{}"; }},
      {Reason::SIGNATURE_INVALID, "not signed by two", [&](Story& s) { s.edit(s.file("2.sensor.json"), "\"1.1.0\"", "\"1.1.1\""); }},
      {Reason::SIGNATURE_INVALID, "byte rule", [&](Story& s) { s.file("2.sensor.json").pop_back(); }},
      {Reason::METADATA_EXPIRED, "order has expired", [&](Story& s) { s.now += 5 * 86400; }},
      {Reason::METADATA_EXPIRED, "expired", [&](Story& s) { s.config.built = s.now + 380 * 86400; }},
      {Reason::BELOW_SECURITY_FLOOR, "below", [&](Story& s) { s.config.security_version = 9; }},
      {Reason::SIGNATURE_INVALID, "for another device", [&](Story& s) { s.config.device_id = "dev-2"; s.answers.files["/director/dev-2/order.json"] = s.file("order.json"); }},
      {Reason::WRONG_HARDWARE, "other hardware", [&](Story& s) { s.config.device_type = "sensor-v3"; }},
      {Reason::SIGNATURE_INVALID, "nobody signs", [&](Story& s) { s.config.product = "boat"; s.answers.files["/image/2.boat.json"] = s.file("2.sensor.json"); }},
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

static void the_server_may_end_an_update() {
  Story story;
  story.each = [](desk::MemoryPort& p, Client&) { p.ends_updates = true; };
  CHECK(story.run() && story.reports.empty() && story.untouched());
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

static void a_device_without_roots_trusts_nobody() {
  Story story;
  story.config.director_root = text("{}");
  CHECK(!story.run(2000) && story.reports.empty() && story.untouched());
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

int main(int words, char** word) {
  if (words < 2) return 2;
  world.folder = word[1];
  std::ifstream about(world.folder + "/words");
  about >> world.id >> world.type >> world.product >> world.old_version >> world.new_version >> world.now;
  world.old_image = desk::contents(world.folder + "/old.bin");
  world.new_image = desk::contents(world.folder + "/new.bin");
  world.image_root = desk::contents(world.folder + "/image.root");
  world.director_root = desk::contents(world.folder + "/director.root");
  std::ifstream list(world.folder + "/list");
  for (std::string path, file; list >> path >> file;) world.answers.files[path] = desk::contents(world.folder + "/" + file);
  world.answers.check = desk::contents(world.folder + "/check.json");
  world.answers.image_version = world.new_version;
  text_is_built_within_its_room();
  moments_are_read();
  json_is_walked();
  http_answers_are_read_however_they_are_cut();
  http_heads_tell_what_the_client_needs();
  addresses_are_read();
  the_doorbell_rings_and_comes_back();
  a_torn_record_costs_its_news_only();
  an_update_arrives();
  downloads_go_on_where_they_broke();
  a_rollback_is_told();
  roots_rotate();
  boot_control_that_fails_is_named();
  an_image_of_any_form_may_run();
  a_decoder_without_a_stack_says_so();
  orders_and_roles_are_bounded();
  a_server_without_resume_is_read_past();
  deltas_that_do_not_work_out_cost_time_only();
  what_is_not_right_is_named();
  what_may_pass_only_waits();
  a_download_that_never_comes_is_given_up();
  trials_that_do_not_pass_fall_back();
  a_journal_that_was_lost_loses_no_device();
  the_server_may_end_an_update();
  a_rollback_is_judged_by_the_floor();
  a_device_without_roots_trusts_nobody();
  an_enrolled_device_keeps_its_token();
  a_worn_store_begins_nothing();
  rings_and_pauses();
  reports_wait_until_they_are_heard();
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures != 0;
}
