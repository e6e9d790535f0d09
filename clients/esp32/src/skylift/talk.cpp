// What is said to the server, and what it answers. Anything but a well-formed 200 is "no update now".
#include "client.hpp"

namespace skylift {
namespace {

constexpr uint32_t QUIET_MS = 30000, MOST_ANSWER = 8192, LONGEST_S = 3600, USUAL_S = 300;
const char* const NAMES[] = {"", "downloading", "installing", "validating", "complete", "failed", "rolled_back"};

bool refused(int status) {  // repeating does not mend it
  return status == 400 || status == 403 || status == 404 || status == 409 || status == 413 || status == 422;
}

}  // namespace

// A file, or an answer, into the arena.
Outcome Client::ask_for(const char* path, uint32_t most) {
  const Ask ask = {"GET", path, token(), nullptr, 0, nullptr};
  return exchange(ask, reinterpret_cast<uint8_t*>(arena_.file), most);
}

// What stands in body_. The answer goes into the buffer, for a delta may be at work in the arena.
Outcome Client::tell(const char* path) {
  const Ask ask = {"POST", path, token(), body_, 0, nullptr};
  return exchange(ask, buffer_, sizeof buffer_ - 1);
}

// One request and its whole answer: MORE until it is there, then OK with head_ and got_. `to` has room for one more.
Outcome Client::exchange(const Ask& ask, uint8_t* to, uint32_t most) {
  const uint32_t now = port_.millis();
  rest_ms_ = 0;
  if (!is_open_) {
    got_ = 0;
    has_head_ = false;
    moved_ms_ = now;
    is_open_ = true;  // closed in any case
    return port_.http_open(ask) ? Outcome::MORE : later(0, "the server cannot be reached");
  }
  int n = has_head_ ? 1 : port_.http_head(head_);
  if (n == 1) {
    has_head_ = true;
    const uint32_t room = most - got_;
    n = port_.http_read(to + got_, room ? room : 1);
    if (n > 0 && !room) return later(60, "an answer is larger than this device takes");
    if (n > 0) got_ += static_cast<uint32_t>(n);
    if (n == END) {
      to[got_] = 0;
      return Outcome::OK;
    }
  }
  if (n == BROKEN || n == END) return later(0, "an answer broke off");
  if (n > 0) moved_ms_ = now;
  if (now - moved_ms_ > QUIET_MS) return later(0, "the server went quiet");
  rest_ms_ = n ? 0 : 2;
  return Outcome::MORE;
}

Outcome Client::refused_or_away(const char* what) {
  const uint32_t told = head_.retry_after < LONGEST_S ? head_.retry_after : LONGEST_S;
  return later(told ? told : 30, what);
}

Outcome Client::enroll() {
  Facts& facts = facts_.body;
  if (config_.token[0] || facts.enrolled || !config_.claim[0]) return Outcome::NO;
  if (!facts.token[0]) {
    uint8_t secret[24];
    port_.random(secret, sizeof secret);
    Line(facts.token, sizeof facts.token).put("dev_").hex(secret, sizeof secret);
    if (!save(port_, "facts", facts_)) {
      facts.token[0] = 0;  // a token that is not kept must not be told to anybody
      return later(60, "the key-value store cannot be written: not enrolled");
    }
  }
  if (!is_open_) {
    Line body(body_, sizeof body_);
    body.put("{\"claim\":").quoted(config_.claim).put(",\"device_id\":").quoted(config_.device_id);
    body.put(",\"device_type\":").quoted(config_.device_type).put(",\"token\":").quoted(facts.token).put('}');
  }
  const Outcome found = tell("/api/enroll");
  if (found != Outcome::OK) return found;
  if (head_.status != 200 && head_.status != 201) return refused_or_away("the server does not enroll this device");
  facts.enrolled = 1;
  save(port_, "facts", facts_);
  return Outcome::OK;
}

// --- how it is --------------------------------------------------------------------------------------------------------------

void Metrics::add(const char* name, int32_t value, uint8_t decimals) {
  if (count_ == 8 || to_.left() < length(name) + 48) return;  // 48: the longest number, and what may follow
  if (count_++) to_.put(',');
  to_.quoted(name).put(':');
  if (value < 0) to_.put('-');
  uint32_t whole = value < 0 ? 0u - static_cast<uint32_t>(value) : static_cast<uint32_t>(value), unit = 1;
  for (; decimals; decimals--) unit *= 10;
  to_.number(whole / unit);
  if (unit > 1) to_.put('.');
  while (unit > 1) {
    whole %= unit;
    unit /= 10;
    to_.number(whole / unit);
  }
}

void Client::put_health(Line& body) {
  body.put("\"healthy\":").put(hooks_.healthy() ? "true" : "false").put(",\"metrics\":{");
  Metrics metrics(body);
  hooks_.metrics(metrics);
  body.put('}');
}

// Now and then, and whenever the server asked, updated or not: who speaks more often than others would look worse, or better.
Outcome Client::health() {
  if (!config_.health_seconds || static_cast<int32_t>(port_.millis() - health_ms_) < 0) return Outcome::NO;
  if (!is_open_) {
    Line(path_, sizeof path_).put("/api/devices/").escaped(config_.device_id).put("/health");
    Line body(body_, sizeof body_);
    put_health(body.put('{'));
    body.put('}');
  }
  const Outcome found = tell(path_);
  if (found == Outcome::MORE) return found;
  health_ms_ = port_.millis() + config_.health_seconds * 1000;
  if (found == Outcome::OK && head_.status != 200) port_.log("the word of health is refused");
  return Outcome::OK;
}

// --- reports --------------------------------------------------------------------------------------------------------------

void Client::body_of(Said what, int percent) {
  const Journal& journal = journal_.body;
  Line body(body_, sizeof body_);
  body.put("{\"device_id\":").quoted(config_.device_id).put(",\"deployment\":").quoted(journal.deployment);
  body.put(",\"attempt\":").number(journal.attempt).put(",\"state\":").quoted(NAMES[static_cast<int>(what)]);
  if (percent >= 0) body.put(",\"progress\":").number(static_cast<uint32_t>(percent));
  if (what == Said::INSTALLING) {
    body.put(",\"way\":\"").put(journal.by_delta ? "delta\"" : "full\"");
    if (passed_) body.put(",\"passed\":{\"delta\":").quoted(passed_).put('}');
  } else if (what >= Said::FAILED) {
    body.put(",\"reason\":").quoted(name_of(journal.reason)).put(",\"error_message\":").quoted(journal.words);
  } else if (what == Said::COMPLETE) {
    body.put(",\"image_sha256\":\"").hex(journal.sha256, 32).put('"');
    body.put(",\"version\":").quoted(config_.version);
    if (config_.health_seconds) put_health(body.put(','));  // its self-tests have just passed
  }
  const Log& log = facts_.body.log;
  if (what >= Said::COMPLETE && log.size)  // which log this device was shown
    body.put(",\"log\":{\"size\":").number(log.size).put(",\"root\":\"").hex(log.root, 32).put("\"}");
  body.put('}');
}

// The final report that waits, if one does. NO: an update is under way, go on with it.
Outcome Client::report() {
  Journal& journal = journal_.body;
  if (journal.to_say == Said::NONE) return journal.stage == Stage::FETCHING ? Outcome::NO : Outcome::OK;
  if (!is_open_) body_of(journal.to_say, journal.to_say == Said::COMPLETE ? 100 : -1);
  const Outcome found = tell("/api/updates/status");
  if (found != Outcome::OK) return found;
  if (head_.status != 200 && !refused(head_.status)) return refused_or_away("the report was not taken");
  journal.ended = journal.to_say;
  journal.to_say = Said::NONE;
  save_journal();
  away_ = 0;
  return Outcome::OK;
}

// A report on the way: lost ones do no harm. NO: the server has ended this update.
Outcome Client::say(Said what, int percent) {
  if (!is_open_) {
    body_of(what, percent);
    hooks_.progress(percent);
  }
  const Outcome found = tell("/api/updates/status");
  if (found == Outcome::AWAY) return Outcome::AWAY;
  if (found != Outcome::OK || head_.status != 200) return found == Outcome::MORE ? found : Outcome::OK;
  const Text state = Json::parse({reinterpret_cast<const char*>(buffer_), got_}).string("state");
  bool open = state.is("pending");
  for (int k = 1; k <= 3; k++) open |= state.is(NAMES[k]);
  if (open || !state) return Outcome::OK;
  port_.log("the server has ended this update");
  journal_.body.stage = Stage::IDLE;
  delta_.end();
  begun_ = false;
  wake_ms_ = 1000;
  save_journal();
  return Outcome::NO;
}

Outcome Client::say_progress() { return say(Said::DOWNLOADING, percent()); }
Outcome Client::say_installing() { return say(Said::INSTALLING, 100); }
Outcome Client::say_validating() { return say(Said::VALIDATING, 100); }

// --- the check --------------------------------------------------------------------------------------------------------------

Outcome Client::check() {
  if (!is_open_) {
    uint8_t fresh[NONCE / 2], sha[32];
    port_.random(fresh, sizeof fresh);
    Line(nonce_, sizeof nonce_).hex(fresh, sizeof fresh);
    Line path(path_, sizeof path_);
    path.put("/api/updates/check?device_id=").escaped(config_.device_id).put("&device_type=").escaped(config_.device_type);
    path.put("&current_version=").escaped(config_.version).put("&nonce=").put(nonce_);
    if (running_sha256(sha)) path.put("&image_sha256=").hex(sha, 32);
  }
  const Outcome found = ask_for(path_, MOST_ANSWER);
  if (found != Outcome::OK) return found;
  if (head_.status != 200) return refused_or_away("the check is not answered with 200");
  const Json answer = Json::parse({arena_.file, got_});
  if (!answer["update_available"].is_bool()) return later(60, "the check's answer makes no sense");
  away_ = 0;
  if (answer["report_health"].is_true()) health_ms_ = port_.millis();  // a gate compares it with others
  uint32_t told;
  if (!answer.number("retry_after", LONGEST_S, &told) || !told) told = USUAL_S;
  if (config_.poll_seconds && told > config_.poll_seconds) told = config_.poll_seconds;
  uint8_t dice[2];  // spreads a herd: from 85 to 115 percent
  port_.random(dice, sizeof dice);
  wake_ms_ = told * (850 + (dice[0] | static_cast<uint32_t>(dice[1]) << 8) % 301);
  if (!answer["update_available"].is_true()) return Outcome::NO;
  if (!read_answer(answer)) return later(60, "the check's answer makes no sense");
  char tag[NAME + 12];
  Line said(tag, sizeof tag);
  said.put(hint_.deployment).put('/').number(hint_.attempt);
  return is_answered(crc32(tag, said.size())) ? Outcome::NO : Outcome::OK;
}

// What it hints at. The delta is optional; so is a way to the image of the server's own choice.
bool Client::read_answer(const Json& answer) {
  clear(hint_);
  const Json trust = answer["trust"], delta = answer["delta"];
  if (!trust.number("order", MOST_VERSION, &hint_.order) || !trust.number("role", MOST_VERSION, &hint_.role) ||
      !answer.number("attempt", MOST_VERSION, &hint_.attempt) ||
      !answer.keep("deployment", hint_.deployment, sizeof hint_.deployment))
    return false;
  trust.number("root_version", MOST_VERSION, &hint_.root);
  trust.number("director_root_version", MOST_VERSION, &hint_.director_root);
  trust.number("delegation_version", MOST_VERSION, &hint_.delegation);
  answer.keep("url", hint_.url, sizeof hint_.url);
  answer.hex("sha256", hint_.sha256, 32);
  hint_.delta = delta.keep("url", hint_.delta_url, sizeof hint_.delta_url) && hint_.delta_url[0] == '/' &&
                delta.number("size", MOST_VERSION, &hint_.delta_size) &&
                delta.number("memory", MOST_VERSION, &hint_.delta_memory) &&
                delta.hex("sha256", hint_.delta_sha256, 32) && delta.hex("base_sha256", hint_.base_sha256, 32);
  return true;
}

// Until the time is over or the bell rings. NO: an update is under way.
Outcome Client::rest() {
  if (fresh_) {
    opened_ms_ = port_.millis();
    if (away_) {  // jitter here too
      uint8_t dice[1];
      port_.random(dice, 1);
      wake_ms_ += wake_ms_ / 8 * dice[0] / 256;
    }
  }
  const uint32_t gone = port_.millis() - opened_ms_;
  if (gone < wake_ms_ && !rang_) {
    rest_ms_ = wake_ms_ - gone < 50 ? wake_ms_ - gone : 50;
    return Outcome::MORE;
  }
  if (!away_) fault_.clear();
  rang_ = false;
  return journal_.body.stage == Stage::FETCHING && begun_ ? Outcome::NO : Outcome::OK;
}

}  // namespace skylift
