#include "trust.hpp"

#include "crypto.hpp"
#include "log.hpp"

namespace skylift {
namespace {

// --- a file, opened ------------------------------------------------------------------------------------------------

// `what` begins every sentence about it.
struct File {
  File(Text file, const char* named, Fault& where) : text(file), what(named), fault(where) {}
  bool no(Reason reason, const char* words) const { return fault.set(reason, what, words); }
  bool open(uint32_t most);
  bool is_signed_by(const KeySet& keys) const;
  bool is_of(const char* type, uint32_t least);  // and not of an older version
  bool is_in_time(uint32_t now);
  // What all but roots must be, before anything else is looked at.
  bool holds(uint32_t most, const KeySet& keys, uint32_t least) {
    return open(most) && is_signed_by(keys) && is_of("targets", least);
  }

  Text text;
  const char* what;
  Fault& fault;
  Json body;        // what was signed
  Json signatures;  // by whom
  uint8_t digest[32];
  uint32_t version = 0, expires = 0;
};

const char HEAD[] = "{\"signatures\":[", MIDDLE[] = "],\"signed\":";

bool starts(Text file, uint32_t at, const char* with) {
  const uint32_t n = static_cast<uint32_t>(length(with));
  return file.size >= at && file.size - at >= n && equal(file.at + at, with, n);
}

// The digest of a slice with its `\n` undone; false where anything else is escaped, or is not ASCII.
bool digest_of(Text slice, uint8_t out[32]) {
  Sha256 sha;
  sha.begin();
  uint32_t from = 0;
  for (uint32_t k = 0; k < slice.size; k++) {
    if (slice.at[k] & 0x80) return false;
    if (slice.at[k] != '\\') continue;
    if (k + 1 == slice.size || slice.at[k + 1] != 'n') return false;
    sha.add(slice.at + from, k - from);
    sha.add("\n", 1);
    from = ++k + 1;
  }
  sha.add(slice.at + from, slice.size - from);
  sha.end(out);
  return true;
}

// Not too many, and no key signs twice.
bool signatures_hold(const Json& signatures) {
  uint32_t count = 0;
  for (Members each(signatures); each.next(); count++) {
    const Text id = each.value.string("keyid");
    if (count == MOST_SIGNATURES || !id || !each.value.string("sig")) return false;
    Members other(signatures);
    for (uint32_t k = 0; k < count && other.next(); k++)
      if (other.value.string("keyid").is(id)) return false;
  }
  return true;
}

bool File::open(uint32_t most) {
  if (text.size > most) return no(Reason::SIGNATURE_INVALID, " is larger than this device takes");
  const uint32_t head = sizeof HEAD - 1, middle = sizeof MIDDLE - 1;
  uint32_t at = head;
  bool whole = starts(text, 0, HEAD);
  while (whole && !starts(text, at, MIDDLE)) whole = ++at < text.size;
  whole = whole && text.at[text.size - 1] == '}';
  if (whole) {
    const Text slice = {text.at + at + middle, text.size - at - middle - 1};
    signatures = Json::parse({text.at + head - 1, at - head + 2}, true);
    body = Json::parse(slice, true);
    whole = signatures.is_array() && signatures_hold(signatures) && body.is_object() && digest_of(slice, digest);
  }
  return whole || no(Reason::SIGNATURE_INVALID, " does not follow the byte rule");
}

// --- who signed it ----------------------------------------------------------------------------------------------------

int index_of(const KeySet& keys, const uint8_t id[32]) {
  for (int k = 0; k < keys.count; k++)
    if (equal(keys.key[k].id, id, 32)) return k;
  return -1;
}

// One signature's key, by its place in the set; -1 where it is no valid signature of one of them.
int signer(const Json& signature, const KeySet& keys, const uint8_t digest[32]) {
  uint8_t id[32], der[72];
  const Text sig = signature.string("sig");
  if (!signature.hex("keyid", id, sizeof id) || sig.size > 2 * sizeof der || !from_hex(sig, der, sig.size / 2)) return -1;
  const int key = index_of(keys, id);
  return key >= 0 && p256_verify(keys.key[key].point, digest, der, sig.size / 2) ? key : -1;
}

bool File::is_signed_by(const KeySet& keys) const {
  uint32_t said = 0, count = 0;
  for (Members each(signatures); each.next() && count < keys.threshold;) {
    const int key = signer(each.value, keys, digest);
    if (key < 0 || said >> key & 1) continue;
    said |= 1u << key;
    count++;
  }
  return (keys.threshold && count >= keys.threshold) || no(Reason::SIGNATURE_INVALID, " is not signed by enough of its keys");
}

// --- keys ---------------------------------------------------------------------------------------------------------------

int base64(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// The point of a PEM public key: the one form in which a P-256 key is written, 91 bytes of DER in two lines.
bool point_of(Text pem, uint8_t to[64]) {
  static const char BEGIN[] = "-----BEGIN PUBLIC KEY-----\\n", END[] = "\\n-----END PUBLIC KEY-----";
  static const uint8_t DER[27] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                                  0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
  if (!starts(pem, 0, BEGIN)) return false;
  uint8_t der[93];
  uint32_t n = 0, have = 0, bits = 0, at = sizeof BEGIN - 1;
  for (; at < pem.size && n < 91 && pem.at[at] != '='; at++) {
    if (starts(pem, at, "\\n")) {
      at++;
      continue;
    }
    const int six = base64(pem.at[at]);
    if (six < 0) return false;
    have = have << 6 | static_cast<uint32_t>(six);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    der[n++] = static_cast<uint8_t>(have >> bits);
  }
  while (at < pem.size && pem.at[at] == '=') at++;
  if (n != 91 || !equal(der, DER, sizeof DER) || !starts(pem, at, END)) return false;
  copy(to, der + sizeof DER, 64);
  return true;
}

// The keys of a role: distinct ids, distinct keys, all of our one scheme; and a threshold they can reach.
bool keys_of(const Json& keys, const Json& role, uint32_t least, KeySet& to) {
  clear(to);
  uint32_t threshold;
  if (!role.number("threshold", MOST_KEYS, &threshold) || threshold < least) return false;
  for (Members each(role["keyids"]); each.next();) {
    const Text id = each.value.string();
    const Json key = keys.member(id);
    if (to.count == MOST_KEYS) return false;
    Key& next = to.key[to.count];
    if (!from_hex(id, next.id, 32) || !key.says("keytype", "ecdsa") || !key.says("scheme", "ecdsa-sha2-nistp256") ||
        !point_of(key["keyval"].string("public"), next.point))
      return false;
    for (int k = 0; k < to.count; k++)
      if (equal(to.key[k].id, next.id, 32) || equal(to.key[k].point, next.point, 64)) return false;
    to.count++;
  }
  to.threshold = static_cast<uint8_t>(threshold);
  return to.count >= threshold && threshold;
}

// How many of the old keys are still among the new.
uint32_t kept(const KeySet& old, const KeySet& fresh) {
  uint32_t count = 0;
  for (int k = 0; k < old.count; k++)
    for (int n = 0; n < fresh.count; n++) count += equal(old.key[k].point, fresh.key[n].point, 64);
  return count;
}
// Whether what the old keys signed may still count: versions must be kept then. Where it cannot, they are forgotten:
// a stolen key may have driven them up.
bool outlives(const KeySet& fresh, const KeySet& old) { return kept(old, fresh) >= fresh.threshold; }
bool same(const KeySet& a, const KeySet& b) {
  return a.count == b.count && a.threshold == b.threshold && kept(a, b) == a.count;
}

// --- what every file says ---------------------------------------------------------------------------------------------------

bool File::is_of(const char* type, uint32_t least) {
  if (!body.says("_type", type) || !body.number("version", MOST_VERSION, &version) || !version ||
      !starts(body.string("spec_version"), 0, "1."))
    return no(Reason::SIGNATURE_INVALID, " is of another type, or without a version");
  return version >= least || no(Reason::METADATA_ROLLBACK, " is older than the last one");
}

bool File::is_in_time(uint32_t now) {
  if (!seconds_of(body.string("expires"), &expires)) return no(Reason::SIGNATURE_INVALID, " does not say when it expires");
  return now < expires || no(Reason::METADATA_EXPIRED, " has expired");
}

// The same of a file that was verified before.
bool still(uint32_t expires, uint32_t now, const char* what, Fault& fault) {
  return now < expires || fault.set(Reason::METADATA_EXPIRED, what, " has expired");
}

// What both files say of an image; `description` is where its digest is of.
bool image_of(const Json& target, const Json& description, Described& to) {
  return target.number("length", 0xFFFFFF00u, &to.length) && to.length && target["hashes"].hex("sha256", to.sha256, 32) &&
         description.is_object() && digest_of(description.raw(), to.description);
}

bool fits(const Json& description, const char* device_type) {
  for (Members each(description["hardware"]); each.next();)
    if (each.value.string().is(device_type)) return true;
  return false;
}

// `product/version/device_type`: whether the path is this product's.
bool of_product(const char* path, const char* product) {
  const uint32_t n = static_cast<uint32_t>(length(product));
  uint32_t slashes = 0;
  for (const char* at = path; *at; at++) slashes += *at == '/';
  return slashes == 2 && starts(text(path), 0, product) && path[n] == '/';
}

// `["product/*/*"]`, and nothing else.
bool its_paths(const Json& paths, const char* product) {
  Members each(paths);
  if (!each.next()) return false;
  const Text path = each.value.string();
  const uint32_t n = static_cast<uint32_t>(length(product));
  return path.size == n + 4 && equal(path.at, product, n) && equal(path.at + n, "/*/*", 4) && !each.next();
}

// No log is as good as none: an older server's.
bool log_of(const Json& shown, Log& to) {
  return !shown || (shown.number("size", MOST_VERSION, &to.size) && to.size && shown.hex("root", to.root, 32));
}

bool read_ordered(const Json& body, const Device& device, Order& order) {
  const Json targets = body["targets"];
  if (!log_of(body["log"], order.log) || !targets.is_object()) return false;
  Members each(targets);
  if (!each.next()) return true;  // nothing ordered
  const Json custom = each.value["custom"];
  order.mandatory = custom["mandatory"].is_true();
  order.any = true;
  return keep(each.name, order.path, sizeof order.path) && image_of(each.value, custom["image"], order) &&
         custom.number("attempt", 1000000, &order.attempt) &&
         custom.keep("deployment", order.deployment, sizeof order.deployment) &&
         custom.says("device_id", device.device_id) && !each.next();
}

}  // namespace

bool seconds_of(Text t, uint32_t* seconds) {
  static const char FORM[] = "    -  -  T  :  :  Z";
  static const uint8_t AT[] = {0, 2, 5, 8, 11, 14, 17}, MOST[] = {99, 99, 12, 31, 23, 59, 60};
  uint32_t part[7];
  bool good = t.size == sizeof FORM - 1;
  for (uint32_t k = 0; good && k < t.size; k++) good = FORM[k] == ' ' || FORM[k] == t.at[k];
  for (uint32_t k = 0; good && k < 7; k++) good = from_decimal({t.at + AT[k], 2}, MOST[k], &part[k]);
  if (!good || !part[2] || !part[3]) return false;
  // Days since 1 March of the year 0: years begin in March, so that the odd day comes last.
  const uint32_t said = part[0] * 100 + part[1], year = said - (part[2] < 3), first = 719468, last = first + UINT32_MAX / 86400 - 1;
  uint32_t days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * ((part[2] + 9) % 12) + 2) / 5 + part[3] - 1;
  days = !said || days < first ? first : days > last ? last : days;
  *seconds = (days - first) * 86400 + part[4] * 3600 + part[5] * 60 + part[6];
  return true;
}

bool take_root(Repo repo, Text text, bool pinned, Keys& keys, Seen& seen, Fault& fault) {
  const bool image = repo == Repo::IMAGE;
  const char* name = image ? "image" : "director";
  uint32_t& known = image ? keys.image_root : keys.director_root;
  KeySet& root_keys = image ? keys.image_root_keys : keys.director_root_keys;
  KeySet& next_keys = image ? keys.delegation_keys : keys.order_keys;
  File file(text, "a root", fault);
  KeySet roots, targets;
  if (!file.open(MOST_ROOT)) return false;
  const Json all = file.body["keys"], roles = file.body["roles"];
  if (!keys_of(all, roles["root"], 2, roots) || !keys_of(all, roles["targets"], image ? 2 : 1, targets))
    return file.no(Reason::SIGNATURE_INVALID, "'s keys or thresholds are not ours");
  if ((!pinned && !file.is_signed_by(root_keys)) || !file.is_signed_by(roots) || !file.is_of("root", 0)) return false;
  if (!file.body.says("repository", name)) return file.no(Reason::SIGNATURE_INVALID, " is of the other repository");
  if (!pinned && file.version != known + 1) return file.no(Reason::METADATA_ROLLBACK, " is not the next version");
  // By its signatures, not by its date: only the newest of a chain has to be in time, and the order's and the role's
  // checks see to that.
  if (!file.is_in_time(0)) return false;
  if (image) {
    if (!same(next_keys, targets)) keys.delegated = 0;  // until these keys have vouched for the delegation
    if (!outlives(targets, next_keys)) keys.delegation = 0;
  } else if (!outlives(targets, next_keys)) {
    seen.order = 0;
  }
  file_leaf(text, name, "root", file.version, image ? keys.image_root_leaf : keys.director_root_leaf);
  next_keys = targets;
  root_keys = roots;
  known = file.version;
  (image ? keys.image_root_until : keys.director_root_until) = file.expires;
  return true;
}

bool take_delegation(Text text, const char* product, uint32_t now, Keys& keys, Seen& seen, Fault& fault) {
  File file(text, "the delegation", fault);
  if (!file.holds(MOST_ROOT, keys.delegation_keys, keys.delegation) || !file.is_in_time(now)) return false;
  const Json delegations = file.body["delegations"];
  KeySet found;
  found.count = 0;
  for (Members each(delegations["roles"]); each.next() && !found.count;) {
    if (!each.value.says("name", product)) continue;
    if (!its_paths(each.value["paths"], product) || !keys_of(delegations["keys"], each.value, 2, found))
      return file.no(Reason::SIGNATURE_INVALID, "'s keys, threshold or paths for this product are not ours");
  }
  if (!found.count) return file.no(Reason::SIGNATURE_INVALID, " names nobody for this device's product");
  if (!outlives(found, keys.release_keys)) seen.role = 0;
  keys.release_keys = found;
  keys.delegated = 1;
  keys.delegation = file.version;
  keys.delegation_until = file.expires;
  return true;
}

bool read_order(Text text, const Device& device, Text nonce, const Keys& keys, const Seen& seen, uint32_t now,
                Order& order, Fault& fault) {
  File file(text, "the order", fault);
  clear(order);
  if (!file.holds(MOST_ORDER, keys.order_keys, seen.order)) return false;
  order.version = file.version;
  if (!file.body.says("device_id", device.device_id)) return file.no(Reason::SIGNATURE_INVALID, " is for another device");
  if (file.body["delegations"]) return file.no(Reason::SIGNATURE_INVALID, " delegates");
  if (nonce && !file.body.string("nonce").is(nonce))
    return file.no(Reason::METADATA_ROLLBACK, " answers another question: its nonce is not ours");
  if (!nonce && !now) return file.no(Reason::METADATA_EXPIRED, " has no nonce, and the clock is not set");
  if (!file.is_in_time(now) || !still(keys.director_root_until, now, "the director's root", fault)) return false;
  return read_ordered(file.body, device, order) ||
         file.no(Reason::SIGNATURE_INVALID, " names more than one image, or describes none, or no log");
}

bool read_role(Text text, const Device& device, const Keys& keys, const Seen& seen, uint32_t floor, uint32_t now,
               Order& order, Fault& fault) {
  File file(text, "the release", fault);
  if (!keys.delegated) return file.no(Reason::SIGNATURE_INVALID, "'s keys are not vouched for by the image repository");
  if (!file.holds(MOST_ROLE, keys.release_keys, seen.role) || !file.is_in_time(now) ||
      !still(keys.delegation_until, now, "the delegation", fault) ||
      !still(keys.image_root_until, now, "the image repository's root", fault))
    return false;
  const Json target = file.body["targets"].member(skylift::text(order.path)), said = target["custom"];
  if (!target || !of_product(order.path, device.product))
    return file.no(Reason::SIGNATURE_INVALID, " does not have the ordered image");
  Described vouched;
  if (!image_of(target, said, vouched) || !equal(&vouched, static_cast<Described*>(&order), sizeof vouched))
    return file.no(Reason::HASH_MISMATCH, " and the order disagree about the image");
  if (!fits(said, device.device_type)) return file.no(Reason::WRONG_HARDWARE, " is for other hardware");
  if (!said.keep("version", order.image_version, sizeof order.image_version) ||
      !said.number("security_version", MOST_VERSION, &order.security_version) || !said.string("kind"))
    return file.no(Reason::SIGNATURE_INVALID, "'s image is described incompletely");
  if (order.security_version < floor) return file.no(Reason::BELOW_SECURITY_FLOOR, " is below the security floor");
  order.role_version = file.version;
  file_leaf(text, "image", device.product, file.version, order.role_leaf);
  order_leaf(order, order.leaf);
  order.is_image = said.says("kind", "image");
  return true;
}

}  // namespace skylift
