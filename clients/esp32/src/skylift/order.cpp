// The order: what is fetched and verified before a byte of an image is asked for.
#include "client.hpp"

namespace skylift {
namespace {

constexpr uint32_t MOST_ROTATIONS = 256;  // followed in one go

}  // namespace

Outcome Client::director_root() { return next_root(Repo::DIRECTOR, keys_.body.director_root, hint_.director_root); }
Outcome Client::image_root() { return next_root(Repo::IMAGE, keys_.body.image_root, hint_.root); }

// A signed file: OK once it is there, whole.
Outcome Client::get_file(uint32_t most, const char* missing) {
  const Outcome found = ask_for(path_, most);
  return found == Outcome::OK && head_.status != 200 ? refused_or_away(missing) : found;
}

// The next root, while the answer says that there is one.
Outcome Client::next_root(Repo repo, uint32_t known, uint32_t newest) {
  if (newest <= known || newest - known > MOST_ROTATIONS) return Outcome::NO;
  if (!is_open_) {
    Line path(path_, sizeof path_);
    if (repo == Repo::IMAGE)
      path.put("/image/");
    else
      path.put("/director/").escaped(config_.device_id).put('/');
    path.number(known + 1).put(".root.json");
  }
  const Outcome found = get_file(MOST_ROOT, "a root is not there");
  if (found != Outcome::OK) return found;
  if (!take_root(repo, {arena_.file, got_}, false, keys_.body, facts_.body.seen, fault_)) return Outcome::BAD;
  return written(save(port_, "keys", keys_) && save(port_, "facts", facts_));
}

Outcome Client::delegation() {
  Keys& keys = keys_.body;
  if (keys.delegated && hint_.delegation <= keys.delegation) return Outcome::NO;
  if (!is_open_) Line(path_, sizeof path_).put("/image/").number(hint_.delegation).put(".targets.json");
  const Outcome found = get_file(MOST_ROOT, "the delegation is not there");
  if (found != Outcome::OK) return found;
  if (!take_delegation({arena_.file, got_}, config_.product, time(), keys, facts_.body.seen, fault_)) return Outcome::BAD;
  return written(save(port_, "keys", keys_) && save(port_, "facts", facts_));
}

Outcome Client::order() {
  if (!is_open_)
    Line(path_, sizeof path_).put("/director/").escaped(config_.device_id).put("/order.json?nonce=").put(nonce_);
  const Outcome found = get_file(MOST_ORDER, "the order is not there");
  if (found != Outcome::OK) return found;
  const Device device = {config_.device_id, config_.device_type, config_.product};
  if (!read_order({arena_.file, got_}, device, text(nonce_), keys_.body, facts_.body.seen, time(), order_, fault_))
    return Outcome::BAD;
  return order_.any ? Outcome::OK : Outcome::NO;
}

Outcome Client::role() {
  if (!is_open_)
    Line(path_, sizeof path_).put("/image/").number(hint_.role).put('.').put(config_.product).put(".json");
  const Outcome found = get_file(MOST_ROLE, "the release's role is not there");
  if (found != Outcome::OK) return found;
  const Device device = {config_.device_id, config_.device_type, config_.product};
  const bool good = read_role({arena_.file, got_}, device, keys_.body, facts_.body.seen, floor(), time(), order_, fault_);
  return good ? Outcome::OK : Outcome::BAD;
}

// What is ordered stands in the log that the order shows. A server may have none until this device has seen one.
Outcome Client::log() {
  Facts& facts = facts_.body;
  if (facts.log.size || order_.log.size) {
    if (!is_open_) {
      const uint8_t* leaf[LEAVES];
      if (!shows_log(facts.log, order_, fault_)) return Outcome::BAD;
      leaves_of(keys_.body, order_, leaf);
      Line path(path_, sizeof path_);
      path.put("/api/log/compact?size=").number(order_.log.size).put("&since=").number(facts.log.size);
      for (const uint8_t* each : leaf) path.put("&leaf=").hex(each, 32);
    }
    const Outcome found = get_file(MOST_PROOFS, "the log does not prove what is ordered");
    if (found != Outcome::OK) return found;
    if (!read_proofs({arena_.file, got_}, keys_.body, facts.log, order_, fault_)) return Outcome::BAD;
  }
  const Seen now = {order_.version, order_.role_version};
  const bool is_new = !equal(&facts.seen, &now, sizeof now) || facts.log.size != order_.log.size;
  facts.seen = now;
  facts.log = order_.log;
  return written(!is_new || save(port_, "facts", facts_));
}

bool Client::wants_delta() const {
  const Installed& running = facts_.body.image[port_.running()];
  return hint_.delta && running.length && equal(hint_.base_sha256, running.sha256, 32) &&
         hint_.delta_memory && hint_.delta_memory <= DELTA_MEMORY && port_.fiber() && port_.map(port_.running(), running.length);
}

// The order holds: is there room, and what is written down before anything is erased.
Outcome Client::room() {
  Journal& journal = journal_.body;
  uint8_t running[32];
  journal.attempt = order_.attempt;
  copy(journal.deployment, order_.deployment, sizeof journal.deployment);
  copy(journal.sha256, order_.sha256, 32);
  journal.length = order_.length;
  journal.security_version = order_.security_version;
  journal.slot = port_.running() ^ 1;
  if (!order_.is_image) return bad(Reason::INSTALL_ERROR, "this client installs images, nothing else");
  if (running_sha256(running) && equal(running, order_.sha256, 32)) {  // it runs: only the report got lost
    fault_.clear();
    end_update(Said::COMPLETE);
    wake_ms_ = 0;
    return Outcome::NO;
  }
  if (order_.length > port_.slot_size(journal.slot)) return bad(Reason::NO_SPACE, "the image is larger than the slot");
  if (!hooks_.battery_is_good()) {
    port_.log("the update waits for a better battery");
    return Outcome::NO;
  }
  const bool own = hint_.url[0] && equal(hint_.sha256, order_.sha256, 32);
  if (own && hint_.url[0] != '/') return bad(Reason::DOWNLOAD_ERROR, "the image is offered by another host");
  Line url(journal.url, sizeof journal.url);
  journal.by_delta = wants_delta();
  if (journal.by_delta)
    url.put(hint_.delta_url);
  else if (own)
    url.put(hint_.url);
  else
    url.put("/api/blobs/").hex(order_.sha256, 32);
  journal.delta_size = hint_.delta_size;
  copy(journal.delta_sha256, hint_.delta_sha256, 32);
  journal.stage = Stage::FETCHING;
  journal.tries = journal.armed = journal.resumed = 0;
  journal.reason = Reason::NONE;
  passed_ = nullptr;
  begun_ = false;
  offset_.body.at = 0;
  const bool kept = save(port_, "offset", offset_) && save_journal();
  if (!kept) journal.stage = Stage::IDLE;
  return written(kept);
}

// Never begun, or given up: reported once. What names it is the order where it was read, else the check's word.
Outcome Client::refuse() {
  Journal& journal = journal_.body;
  delta_.end();
  begun_ = false;
  port_.log(fault_.words);
  if (journal.stage == Stage::IDLE) {
    journal.attempt = hint_.attempt;
    copy(journal.deployment, hint_.deployment, sizeof journal.deployment);
  }
  end_update(Said::FAILED);
  return Outcome::OK;
}

}  // namespace skylift
