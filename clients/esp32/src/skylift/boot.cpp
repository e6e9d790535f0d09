// From power-on to the first question: what boot control and the journal say, the trial, and the way back.
#include "client.hpp"

namespace skylift {
namespace {

constexpr uint8_t MOST_TRIES = 2;  // times an image is armed before it counts as one that does not boot

uint32_t word_at(const uint8_t* p) {
  return p[0] | static_cast<uint32_t>(p[1]) << 8 | static_cast<uint32_t>(p[2]) << 16 | static_cast<uint32_t>(p[3]) << 24;
}

}  // namespace

void Client::begin(const Config& config) {
  clear(static_cast<Memory&>(*this));
  config_ = config;
  load(port_, "journal", journal_);
  load(port_, "offset", offset_);
  load(port_, "facts", facts_);
  load(port_, "keys", keys_);
  Log& known = facts_.body.log;
  if (known.size < config.log_size && config.log_root) {
    known.size = config.log_size;
    copy(known.root, config.log_root, sizeof known.root);
  }
  become(first_state());
  opened_ms_ = port_.millis();
}

// A table over two facts: which slot runs, and what was under way.
State Client::first_state() {
  Journal& journal = journal_.body;
  const bool other = port_.running() != journal.slot;
  if (port_.pending_verify()) return State::TRIAL;
  if (journal.stage != Stage::BOOTING) return State::PIN;
  if (!other) return State::TRIAL;  // confirmed already, perhaps: what was not written down is done again
  if (!journal.armed && journal.tries < MOST_TRIES && journal.reason == Reason::NONE) return State::READ_BACK;
  fault_.set(journal.reason, journal.words);
  if (!fault_) fault_.set(Reason::BOOT_FAILED, "the new image did not come up: the boot loader fell back");
  end_update(Said::ROLLED_BACK);
  fault_.clear();
  return State::PIN;
}

// The factory's roots, once; afterwards what they led to is kept.
Outcome Client::pin() {
  Keys& keys = keys_.body;
  if (keys.image_root && keys.director_root) return Outcome::OK;
  if (!take_root(Repo::IMAGE, config_.image_root, true, keys, facts_.body.seen, fault_) ||
      !take_root(Repo::DIRECTOR, config_.director_root, true, keys, facts_.body.seen, fault_)) {
    port_.log("the factory's roots are unusable: no update");
    return Outcome::BAD;
  }
  return Outcome::OK;  // not written down: they are in the firmware
}

// How long the running image is, and its digest, if it is an Espressif image and nobody has told: the factory's.
Outcome Client::measure() {
  const uint8_t slot = port_.running();
  Installed& image = facts_.body.image[slot];
  if (image.length) return Outcome::NO;
  uint8_t head[24];
  if (fresh_) {
    if (!port_.read(slot, 0, head, sizeof head) || head[0] != 0xE9 || !head[1] || head[1] > 16) return Outcome::NO;
    segments_ = head[1];
    segment_at_ = 24;
    hashed_ = 0;
    marks_ = head[23];  // 1: a digest follows
    return Outcome::MORE;
  }
  if (segments_) {
    if (!port_.read(slot, segment_at_, head, 8)) return Outcome::NO;
    const uint32_t size = word_at(head + 4);
    if (size > port_.slot_size(slot) || segment_at_ + 8 + size > port_.slot_size(slot)) return Outcome::NO;
    segment_at_ += 8 + size;
    if (!--segments_) segment_at_ = (segment_at_ | 15) + 1 + (marks_ == 1 ? 32 : 0);
    return segment_at_ > port_.slot_size(slot) ? Outcome::NO : Outcome::MORE;
  }
  if (hash_some(slot, segment_at_)) return Outcome::MORE;
  sha_.end(image.sha256);
  image.length = segment_at_;
  marks_ = 0;
  save(port_, "facts", facts_);
  return Outcome::OK;
}

// --- the trial ---------------------------------------------------------------------------------------------------------

Outcome Client::trial() {
  static const char* const NAMES[] = {"network", "sensors", "mqtt"};
  if (fresh_) opened_ms_ = port_.millis(), test_ = 0;
  const Verdict found = test_ == 0 ? hooks_.network(*this) : test_ == 1 ? hooks_.sensors() : hooks_.mqtt();
  rest_ms_ = found != Verdict::WAIT ? 0 : is_open_ ? 2 : 500;
  if (found == Verdict::PASS && ++test_ == 3) return Outcome::OK;
  const bool late = port_.millis() - opened_ms_ > config_.trial_seconds * 1000;
  if (found != Verdict::FAIL && !late) return Outcome::MORE;
  fault_.reason = Reason::HEALTH_CHECK_FAILED;
  Line words(fault_.words, sizeof fault_.words);
  words.put("self-test ").put(NAMES[test_]).put(late ? " was not done in time " : " failed ").put(hooks_.trial_message());
  return Outcome::BAD;
}

Verdict Hooks::network(Client& client) { return client.reach(); }

Verdict Client::reach() {
  const Outcome found = ask_for("/healthz", MOST_ORDER);
  if (found == Outcome::MORE) return Verdict::WAIT;
  close();
  return found == Outcome::AWAY ? Verdict::WAIT : Verdict::PASS;
}

// Every test passed. Boot control first: an image that was never marked falls back, whatever the journal says.
Outcome Client::finish_trial() {
  Journal& journal = journal_.body;
  if (!port_.mark_valid()) return ++marks_ < 3 ? Outcome::MORE : bad(Reason::INSTALL_ERROR, "the image cannot be marked valid");
  Facts& facts = facts_.body;
  if (journal.stage != Stage::BOOTING || port_.running() != journal.slot) return Outcome::OK;  // a journal that was lost
  if (journal.security_version > facts.floor) facts.floor = journal.security_version;
  save(port_, "facts", facts_);
  fault_.clear();
  end_update(Said::COMPLETE);
  return Outcome::OK;
}

Outcome Client::give_up() {
  Journal& journal = journal_.body;
  port_.log(fault_.words);
  if (journal.stage == Stage::BOOTING) {
    journal.reason = fault_.reason;
    copy(journal.words, fault_.words, sizeof journal.words);
    save_journal();
  }
  port_.mark_invalid_and_reboot();
  return Outcome::OK;
}

// The operator's or the user's: the other slot boots, on trial like any image, unless it is below the floor.
Outcome Client::roll_back() {
  const uint8_t other = port_.running() ^ 1;
  uint8_t head[40];
  if (!port_.read(other, 0, head, sizeof head)) return later(60, "the other slot cannot be read");
  const bool described = head[0] == 0xE9 && word_at(head + 32) == 0xABCD5432u;
  if (described && word_at(head + 36) < floor()) return later(60, "no rollback: the other slot is below the security floor");
  Journal& journal = journal_.body;
  const bool tells = journal.ended == Said::COMPLETE && journal.to_say == Said::NONE;
  if (!port_.set_boot(other)) return later(60, "no rollback: the other slot holds nothing that boots");
  fault_.set(Reason::ABORTED, "rolled back on the device");
  if (tells) end_update(Said::ROLLED_BACK);
  port_.restart();
  return Outcome::OK;
}

// The update is over. What there is to say survives until somebody has heard it.
void Client::end_update(Said how) {
  Journal& journal = journal_.body;
  char tag[NAME + 12];
  Line said(tag, sizeof tag);
  said.put(journal.deployment).put('/').number(journal.attempt);
  const uint32_t answered = crc32(tag, said.size());
  if (!is_answered(answered)) {
    journal.answered[journal.answered_at & 3] = answered;
    journal.answered_at++;
  }
  journal.stage = Stage::IDLE;
  journal.to_say = how;
  journal.reason = fault_.reason;
  copy(journal.words, fault_.words, sizeof journal.words);
  save_journal();
}

}  // namespace skylift
