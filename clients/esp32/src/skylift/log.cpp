#include "log.hpp"

#include "crypto.hpp"

namespace skylift {
namespace {

void leaf_of(const Line& entry, const char* chars, uint8_t leaf[32]) {
  Sha256 sha;
  sha.begin();
  sha.add("", 1);  // its zero says: a leaf
  sha.add(chars, entry.size());
  sha.end(leaf);
}

// `to` may be one of the two.
void node(const uint8_t left[32], const uint8_t right[32], uint8_t to[32]) {
  Sha256 sha;
  sha.begin();
  sha.add("\1", 1);
  sha.add(left, 32);
  sha.add(right, 32);
  sha.end(to);
}

// From node `at` of the level whose last is `last` up to the root. `old` climbs along where the older tree has the
// same step: it is null for a proof about one tree.
bool climb(Members& steps, uint32_t at, uint32_t last, uint8_t found[32], uint8_t* old) {
  uint8_t step[32];
  while (steps.next()) {
    if (!last || !from_hex(steps.value.string(), step, 32)) return false;
    if (at & 1 || at == last) {
      node(step, found, found);
      if (old) node(step, old, old);
      for (; at && !(at & 1); at >>= 1) last >>= 1;
    } else {
      node(found, step, found);
    }
    at >>= 1;
    last >>= 1;
  }
  return !last;
}

bool goes_on(const Log& old, const Log& fresh, const Json& proof) {
  Members steps(proof);
  if (!proof.is_array()) return false;
  if (!old.size) return true;  // the first that is seen
  if (old.size == fresh.size) return !steps.next() && equal(old.root, fresh.root, 32);
  uint8_t was[32], is[32];
  copy(was, old.root, 32);
  const bool is_whole = !(old.size & (old.size - 1));  // one complete tree: its root is the first step
  if (!is_whole && !(steps.next() && from_hex(steps.value.string(), was, 32))) return false;
  copy(is, was, 32);
  uint32_t at = old.size - 1, last = fresh.size - 1;
  for (; at & 1; at >>= 1) last >>= 1;
  return climb(steps, at, last, is, was) && equal(was, old.root, 32) && equal(is, fresh.root, 32);
}

bool has(const Log& log, const uint8_t leaf[32], const Json& place) {
  const Json proof = place["proof"];
  uint32_t index;
  if (!place.number("index", log.size - 1, &index) || !proof.is_array()) return false;
  uint8_t found[32];
  copy(found, leaf, 32);
  Members steps(proof);
  return climb(steps, index, log.size - 1, found, nullptr) && equal(found, log.root, 32);
}

}  // namespace

void file_leaf(Text file, const char* repo, const char* role, uint32_t version, uint8_t leaf[32]) {
  char entry[256];
  Sha256 sha;
  sha.begin();
  sha.add(file.at, file.size);
  sha.end(leaf);
  Line line(entry, sizeof entry);
  line.put("{\"entry\":\"file\",\"length\":").number(file.size).put(",\"repo\":\"").put(repo).put("\",\"role\":\"");
  line.put(role).put("\",\"sha256\":\"").hex(leaf, 32).put("\",\"version\":").number(version).put('}');
  leaf_of(line, entry, leaf);
}

void order_leaf(const Order& order, uint8_t leaf[32]) {
  char entry[448];
  Line line(entry, sizeof entry);
  line.put("{\"deployment\":\"").put(order.deployment).put("\",\"entry\":\"order\",\"length\":").number(order.length);
  line.put(",\"mandatory\":").put(order.mandatory ? "true" : "false").put(",\"path\":\"").put(order.path);
  line.put("\",\"sha256\":\"").hex(order.sha256, 32).put("\"}");
  leaf_of(line, entry, leaf);
}

void leaves_of(const Keys& keys, const Order& order, const uint8_t* leaf[LEAVES]) {
  leaf[0] = order.leaf;
  leaf[1] = order.role_leaf;
  leaf[2] = keys.image_root_leaf;
  leaf[3] = keys.director_root_leaf;
}

bool shows_log(const Log& known, const Order& order, Fault& fault) {
  if (!order.log.size) return fault.set(Reason::SIGNATURE_INVALID, "the order does not show the log that this device knows");
  return order.log.size >= known.size || fault.set(Reason::METADATA_ROLLBACK, "the log is shorter than the one this device knows");
}

bool read_proofs(Text file, const Keys& keys, const Log& known, const Order& order, Fault& fault) {
  const Json proofs = file.size > MOST_PROOFS ? Json() : Json::parse(file, true);
  if (!goes_on(known, order.log, proofs["consistency"]))
    return fault.set(Reason::SIGNATURE_INVALID, "the log does not go on from the one this device knows");
  const uint8_t* leaf[LEAVES];
  leaves_of(keys, order, leaf);
  Members places(proofs["inclusions"]);
  bool all = true;
  for (uint32_t k = 0; k < LEAVES; k++) all = all && places.next() && has(order.log, leaf[k], places.value);
  return (all && !places.next()) || fault.set(Reason::SIGNATURE_INVALID, "the log does not have what is ordered");
}

}  // namespace skylift
