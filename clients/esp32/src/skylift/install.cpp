// From the first byte to the restart. One connection at a time: where progress is reported the download is closed and
// goes on by Range, so that what a power cut needs is what every update does.
#include "client.hpp"

namespace skylift {
namespace {

constexpr uint32_t QUIET_MS = 30000, WINDOW_MS = 60000, MOST_BREAKS = 12;

}  // namespace

int Client::percent() const {
  const uint32_t all = journal_.body.length, done = begun_ ? writer_.taken() : offset_.body.at;
  // No slot is as large as 2^32 / 100 bytes.
  return all ? static_cast<int>(done * 100 / all) : 0;
}

Outcome Client::fetch() {
  rest_ms_ = 0;
  if (!begun_) return fetch_open();
  if (port_.millis() - begun_ms_ > config_.download_seconds * 1000)
    return bad(Reason::DOWNLOAD_ERROR, "the download passed its deadline");
  if (writer_.taken() >= journal_.body.length) return fetch_done();
  if (journal_.body.by_delta) {
    const Outcome found = fetch_delta();
    if (found != Outcome::OK) return found;
    if (report_due_) {  // it wants more of the patch: nothing waits in the buffer now
      report_due_ = false;
      return Outcome::NO;
    }
  }
  if (!is_open_) return fetch_open();
  return has_head_ ? fetch_some() : fetch_head();
}

Outcome Client::fetch_open() {
  Journal& journal = journal_.body;
  const uint32_t now = port_.millis();
  if (!begun_) {
    begun_ = true;
    begun_ms_ = now;
    breaks_ = patch_at_ = said_percent_ = 0;
    report_due_ = false;
    saved_at_ = offset_.body.at;
    if (saved_at_) journal.resumed = 1;
    writer_.begin(port_, journal.slot, saved_at_, journal.by_delta);
    said_percent_ = static_cast<uint32_t>(percent());
    const Installed& base = facts_.body.image[port_.running()];
    const uint8_t* mapped = journal.by_delta ? port_.map(port_.running(), base.length) : nullptr;
    Fiber* fiber = port_.fiber();
    if (journal.by_delta && !(mapped && fiber && base.length)) return no_delta("base");
    if (journal.by_delta) delta_.begin(*fiber, mapped, base.length, base.sha256, arena_.delta, journal.length);
    return Outcome::MORE;
  }
  char etag[65];
  Line(etag, sizeof etag).hex(journal.by_delta ? journal.delta_sha256 : journal.sha256, 32);
  const uint32_t from = journal.by_delta ? patch_at_ : writer_.taken();
  const Ask ask = {"GET", journal.url, token(), nullptr, from, etag};
  is_open_ = true;
  has_head_ = false;
  skip_ = 0;
  moved_ms_ = window_ms_ = now;
  window_bytes_ = 0;
  return port_.http_open(ask) ? Outcome::MORE : fetch_broke(0, "the server cannot be reached");
}

Outcome Client::fetch_head() {
  const Journal& journal = journal_.body;
  const int n = port_.http_head(head_);
  if (n == BROKEN) return fetch_broke(0, "the download broke off");
  if (n == WAIT) {
    rest_ms_ = 2;
    return port_.millis() - moved_ms_ > QUIET_MS ? fetch_broke(0, "the server went quiet") : Outcome::MORE;
  }
  has_head_ = true;
  const uint32_t from = journal.by_delta ? patch_at_ : writer_.taken();
  const uint32_t whole = journal.by_delta ? journal.delta_size : journal.length;
  const char* wrong = nullptr;
  if (head_.status == 206 && from) {
    if (head_.from != from || head_.total != whole) wrong = "the server's file has another length than was signed";
  } else if (head_.status == 200) {
    if (head_.has_length && head_.length != whole) wrong = "the server's file has another length than was signed";
    skip_ = from;  // it does not resume: what is there already is read past
  } else if (head_.status >= 300 && head_.status < 400) {
    wrong = "the server redirects to another place";
  } else if (head_.status == 401 || head_.status == 429 || head_.status >= 500) {
    return fetch_broke(head_.retry_after, "the server does not send the image now");
  } else {
    wrong = "the server does not give the image";
  }
  if (!wrong) return Outcome::MORE;
  return journal.by_delta ? no_delta("download") : bad(Reason::DOWNLOAD_ERROR, wrong);
}

Outcome Client::fetch_some() {
  const Journal& journal = journal_.body;
  const uint32_t now = port_.millis(), whole = journal.by_delta ? journal.delta_size : journal.length;
  const uint32_t at = journal.by_delta ? patch_at_ : writer_.taken();
  const uint32_t left = skip_ ? skip_ : whole - at;
  if (!left) {  // all of the patch was read, and the decoder wants more
    delta_.feed(buffer_, 0);
    return Outcome::MORE;
  }
  const int n = port_.http_read(buffer_, left < sizeof buffer_ ? left : static_cast<uint32_t>(sizeof buffer_));
  if (n == BROKEN || n == END) return fetch_broke(0, "the download ended early");
  if (n == WAIT) {
    rest_ms_ = 2;
    return now - moved_ms_ > QUIET_MS ? fetch_broke(0, "the server went quiet") : Outcome::MORE;
  }
  moved_ms_ = now;
  window_bytes_ += static_cast<uint32_t>(n);
  if (now - window_ms_ > WINDOW_MS) {
    if (window_bytes_ / (WINDOW_MS / 1000) < config_.least_bytes_a_second) return fetch_broke(60, "the download is too slow");
    window_ms_ = now;
    window_bytes_ = 0;
  }
  if (skip_) {
    skip_ -= static_cast<uint32_t>(n);
    return Outcome::MORE;
  }
  if (!journal.by_delta) return take(buffer_, static_cast<uint32_t>(n));
  patch_at_ += static_cast<uint32_t>(n);
  delta_.feed(buffer_, static_cast<uint32_t>(n));
  return Outcome::MORE;
}

// Lets the decoder run: OK when it wants more of the patch.
Outcome Client::fetch_delta() {
  switch (delta_.step()) {
    case DeltaRun::Want::INPUT: return Outcome::OK;
    case DeltaRun::Want::OUTPUT: return take(delta_.out(), delta_.out_size());
    case DeltaRun::Want::DONE: return no_delta("broken");  // and makes fewer bytes than were ordered
    default: return no_delta(delta_.why());
  }
}

// Bytes of the image, in order.
Outcome Client::take(const uint8_t* from, uint32_t n) {
  const Journal& journal = journal_.body;
  const uint32_t before = writer_.taken(), looked = 24;
  if (!before && n >= looked && !same_chip(from)) return bad(Reason::WRONG_HARDWARE, "the image is for another chip");
  if (n > journal.length - before) n = journal.length - before;
  if (!writer_.add(from, n)) return bad(Reason::INSTALL_ERROR, "the flash cannot be written");
  breaks_ = 0;
  if (writer_.safe() >= saved_at_ + config_.save_every) {
    offset_.body.at = saved_at_ = writer_.safe();
    if (!save(port_, "offset", offset_)) return written(false);
  }
  const uint32_t now = static_cast<uint32_t>(percent());
  if (now < said_percent_ + config_.progress_percent || now >= 100) return Outcome::MORE;
  said_percent_ = now - now % (config_.progress_percent ? config_.progress_percent : 1);
  report_due_ = journal.by_delta;
  return journal.by_delta ? Outcome::MORE : Outcome::NO;
}

// An Espressif image goes where an Espressif image of the same chip runs.
bool Client::same_chip(const uint8_t* head) {
  uint8_t own[16];
  if (!port_.read(port_.running(), 0, own, sizeof own) || own[0] != 0xE9) return true;
  return head[0] == 0xE9 && equal(head + 12, own + 12, 2);
}

Outcome Client::fetch_done() {
  delta_.end();
  if (!writer_.finish()) return bad(Reason::INSTALL_ERROR, "the flash cannot be written");
  begun_ = false;
  hashed_ = 0;
  away_ = 0;
  return Outcome::OK;
}

// The way is bad. What came stays; a way that never brings anything ends the update.
Outcome Client::fetch_broke(uint32_t retry_after, const char* why) {
  if (++breaks_ > MOST_BREAKS)
    return journal_.body.by_delta ? no_delta("download") : bad(Reason::DOWNLOAD_ERROR, why);
  if (breaks_ == 1) away_ = 0;  // it comes on
  return later(retry_after, why);
}

// A delta that does not work out costs time, never the update: the whole image is fetched instead. `why` is one of the
// server's words (core/ways.py), and told with the next report.
Outcome Client::no_delta(const char* why) {
  char said[40];
  Line(said, sizeof said).put("the delta is of no use: ").put(why);
  port_.log(said);
  passed_ = why;
  return from_the_start();
}

Outcome Client::from_the_start() {
  Journal& journal = journal_.body;
  close();
  delta_.end();
  journal.by_delta = 0;
  Line(journal.url, sizeof journal.url).put("/api/blobs/").hex(journal.sha256, 32);
  offset_.body.at = 0;
  begun_ = false;
  return save(port_, "offset", offset_) && save_journal() ? Outcome::MORE : written(false);
}

// What stands in flash, all of it, read back: the digest that two release keys signed decides.
Outcome Client::read_back() {
  Journal& journal = journal_.body;
  rest_ms_ = 0;
  if (fresh_) hashed_ = 0;
  if (hash_some(journal.slot, journal.length)) return Outcome::MORE;
  uint8_t found[32];
  sha_.end(found);
  hashed_ = 0;
  if (equal(found, journal.sha256, 32)) return Outcome::OK;
  const char* wrong = "what stands in flash is not what was signed";
  const bool again = journal.by_delta || journal.resumed || journal.stage == Stage::BOOTING;
  if (!again) return bad(Reason::HASH_MISMATCH, wrong);
  port_.log(wrong);
  journal.resumed = 0;
  journal.stage = Stage::FETCHING;
  const Outcome whole = journal.by_delta ? no_delta("broken") : from_the_start();
  return whole == Outcome::MORE ? Outcome::NO : whole;
}

Outcome Client::arm() {
  Journal& journal = journal_.body;
  Installed& image = facts_.body.image[journal.slot];
  image.length = journal.length;
  copy(image.sha256, journal.sha256, 32);
  journal.stage = Stage::BOOTING;
  journal.tries++;
  journal.armed = 0;
  if (!save(port_, "facts", facts_) || !save_journal()) return written(false);
  if (!port_.set_boot(journal.slot)) return bad(Reason::INSTALL_ERROR, "boot control does not take the new image");
  journal.armed = 1;
  save_journal();  // lost: one try more
  return Outcome::OK;
}

Outcome Client::restart() {
  rest_ms_ = 50;
  if (!hooks_.may_restart()) return Outcome::MORE;
  port_.log("restarting into the new image, on trial");
  port_.restart();
  return Outcome::OK;
}

}  // namespace skylift
