// The table: what is done in each state, and what comes after it.
#include "client.hpp"

namespace skylift {

struct Machine {
  struct Row {
    Outcome (Client::*deed)();
    State next[4];
  };
  static const Row ROWS[];
};

using S = State;
const Machine::Row Machine::ROWS[] = {
    // One for each state, in their order: what is done; what comes after OK, NO, AWAY, BAD.
    /* PIN */ {&Client::pin, {S::MEASURE, S::HALT, S::REST, S::HALT}},
    /* MEASURE */ {&Client::measure, {S::ENROLL, S::ENROLL, S::ENROLL, S::ENROLL}},
    /* ENROLL */ {&Client::enroll, {S::REPORT, S::REPORT, S::REST, S::REST}},
    /* REPORT */ {&Client::report, {S::HEALTH, S::FETCH, S::REST, S::HEALTH}},
    /* HEALTH */ {&Client::health, {S::CHECK, S::CHECK, S::CHECK, S::CHECK}},  // an update is worth more than a word
    /* CHECK */ {&Client::check, {S::DIRECTOR_ROOT, S::REST, S::REST, S::REFUSE}},
    /* DIRECTOR_ROOT */ {&Client::director_root, {S::DIRECTOR_ROOT, S::IMAGE_ROOT, S::REST, S::REFUSE}},
    /* IMAGE_ROOT */ {&Client::image_root, {S::IMAGE_ROOT, S::DELEGATION, S::REST, S::REFUSE}},
    /* DELEGATION */ {&Client::delegation, {S::ORDER, S::ORDER, S::REST, S::REFUSE}},
    /* ORDER */ {&Client::order, {S::ROLE, S::REST, S::REST, S::REFUSE}},
    /* ROLE */ {&Client::role, {S::LOG, S::REST, S::REST, S::REFUSE}},
    /* LOG */ {&Client::log, {S::ROOM, S::REST, S::REST, S::REFUSE}},
    /* ROOM */ {&Client::room, {S::PROGRESS, S::REST, S::REST, S::REFUSE}},
    /* FETCH */ {&Client::fetch, {S::READ_BACK, S::PROGRESS, S::REST, S::REFUSE}},
    /* PROGRESS */ {&Client::say_progress, {S::FETCH, S::REST, S::FETCH, S::REFUSE}},
    /* READ_BACK */ {&Client::read_back, {S::INSTALLING, S::FETCH, S::REST, S::REFUSE}},
    /* INSTALLING */ {&Client::say_installing, {S::VALIDATING, S::REST, S::VALIDATING, S::REFUSE}},
    /* VALIDATING */ {&Client::say_validating, {S::ARM, S::REST, S::ARM, S::REFUSE}},
    /* ARM */ {&Client::arm, {S::RESTART, S::REST, S::REST, S::REFUSE}},
    /* RESTART */ {&Client::restart, {S::HALT, S::HALT, S::HALT, S::HALT}},
    /* REFUSE */ {&Client::refuse, {S::REPORT, S::REST, S::REST, S::REST}},
    /* REST */ {&Client::rest, {S::PIN, S::PROGRESS, S::PIN, S::PIN}},  // a download that rested asks whether to go on
    /* TRIAL */ {&Client::trial, {S::FINISH, S::GIVE_UP, S::GIVE_UP, S::GIVE_UP}},
    /* FINISH */ {&Client::finish_trial, {S::PIN, S::GIVE_UP, S::GIVE_UP, S::GIVE_UP}},
    /* GIVE_UP */ {&Client::give_up, {S::HALT, S::HALT, S::HALT, S::HALT}},
    /* ROLL_BACK */ {&Client::roll_back, {S::HALT, S::REST, S::REST, S::REST}},
};
static_assert(sizeof Machine::ROWS / sizeof *Machine::ROWS + 1 == static_cast<size_t>(State::COUNT),
              "every state but HALT has its row");

void Client::become(State next) {
  close();
  state_ = next;
  fresh_ = true;
}

uint32_t Client::step() {
  if (back_ && state_ == State::REST) {
    back_ = false;
    become(State::ROLL_BACK);
  }
  if (state_ == State::HALT) return 1000;  // the chip restarts, or there is nothing this device can be told
  const Machine::Row& row = Machine::ROWS[static_cast<int>(state_) - 1];
  const Outcome outcome = (this->*row.deed)();
  if (outcome != Outcome::MORE) {
    become(row.next[static_cast<int>(outcome) - 1]);
    return 0;
  }
  fresh_ = false;
  return rest_ms_;
}

void Client::close() {
  if (is_open_) port_.http_close();
  is_open_ = has_head_ = false;
}

void Client::finish() {
  close();
  delta_.end();
  state_ = State::HALT;
}

Outcome Client::bad(Reason reason, const char* words) {
  fault_.set(reason, words);
  return Outcome::BAD;
}

// Come again: after what the server said, or ever later while it is away.
Outcome Client::later(uint32_t seconds, const char* why) {
  port_.log(why);
  const uint32_t longest = 300, shift = away_ < 9 ? away_ : 9;
  uint32_t wait = 1u << shift;
  if (wait > longest) wait = longest;
  if (seconds > wait) wait = seconds;
  if (away_ < 100) away_++;
  wake_ms_ = wait * 1000;
  return Outcome::AWAY;
}

bool Client::save_journal() { return save(port_, "journal", journal_); }

// Without its records nothing goes on.
Outcome Client::written(bool all) {
  return all ? Outcome::OK : bad(Reason::INSTALL_ERROR, "the key-value store cannot be written");
}

uint32_t Client::time() const {
  const uint32_t now = port_.now();
  return now && now < config_.built ? config_.built : now;
}

bool Client::is_answered(uint32_t tag) const {
  for (uint32_t known : journal_.body.answered)
    if (known == tag) return true;
  return false;
}

const char* Client::token() const { return config_.token[0] ? config_.token : facts_.body.token; }

uint32_t Client::floor() const {
  return facts_.body.floor > config_.security_version ? facts_.body.floor : config_.security_version;
}

bool Client::running_sha256(uint8_t out[32]) const {
  const Installed& image = facts_.body.image[port_.running()];
  copy(out, image.sha256, 32);
  return image.length != 0;
}

// Hashes a buffer's worth of a slot's first bytes; how many are left.
uint32_t Client::hash_some(uint8_t slot, uint32_t length) {
  if (!hashed_) sha_.begin();
  const uint32_t n = length - hashed_ < sizeof buffer_ ? length - hashed_ : static_cast<uint32_t>(sizeof buffer_);
  if (port_.read(slot, hashed_, buffer_, n)) sha_.add(buffer_, n);  // what cannot be read changes the digest
  hashed_ += n;
  return length - hashed_;
}

}  // namespace skylift
