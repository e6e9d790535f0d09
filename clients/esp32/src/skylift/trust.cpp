#include "trust.hpp"

#include "crypto.hpp"
#include "log.hpp"

namespace skylift {
namespace {

// --- a file, opened ------------------------------------------------------------------------------------------------

struct Signed {
  Json body;        // what was signed
  Json signatures;  // by whom
  uint8_t digest[32];
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
    const Text id = each.value["keyid"].string();
    if (count == MOST_SIGNATURES || !id || !each.value["sig"].string()) return false;
    Members other(signatures);
    for (uint32_t k = 0; k < count && other.next(); k++) {
      const Text before = other.value["keyid"].string();
      if (before.size == id.size && equal(before.at, id.at, id.size)) return false;
    }
  }
  return true;
}

bool open(Text file, uint32_t most, Signed& out, Fault& fault) {
  if (file.size > most) return fault.set(Reason::SIGNATURE_INVALID, "a signed file is larger than this device takes");
  const uint32_t head = sizeof HEAD - 1, middle = sizeof MIDDLE - 1;
  uint32_t at = head;
  bool whole = starts(file, 0, HEAD);
  while (whole && !starts(file, at, MIDDLE)) whole = ++at < file.size;
  whole = whole && file.at[file.size - 1] == '}';
  if (whole) {
    const Text slice = {file.at + at + middle, file.size - at - middle - 1};
    out.signatures = Json::parse({file.at + head - 1, at - head + 2}, true);
    out.body = Json::parse(slice, true);
    whole = out.signatures.is_array() && signatures_hold(out.signatures) && out.body.is_object() &&
            digest_of(slice, out.digest);
  }
  return whole || fault.set(Reason::SIGNATURE_INVALID, "a signed file does not follow the byte rule");
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
  const Text sig = signature["sig"].string();
  if (!from_hex(signature["keyid"].string(), id, 32) || sig.size > 2 * sizeof der ||
      !from_hex(sig, der, sig.size / 2))
    return -1;
  const int key = index_of(keys, id);
  return key >= 0 && p256_verify(keys.key[key].point, digest, der, sig.size / 2) ? key : -1;
}

bool enough(const Signed& file, const KeySet& keys) {
  uint32_t said = 0, count = 0;
  for (Members each(file.signatures); each.next() && count < keys.threshold;) {
    const int key = signer(each.value, keys, file.digest);
    if (key < 0 || said >> key & 1) continue;
    said |= 1u << key;
    count++;
  }
  return keys.threshold && count >= keys.threshold;
}

bool signed_by(const Signed& file, const KeySet& keys, const char* who, Fault& fault) {
  return enough(file, keys) || fault.set(Reason::SIGNATURE_INVALID, who);
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
  to = KeySet();
  uint64_t threshold;
  if (!role["threshold"].number(MOST_KEYS, &threshold) || threshold < least) return false;
  for (Members each(role["keyids"]); each.next();) {
    const Text id = each.value.string();
    const Json key = keys.member(id);
    if (to.count == MOST_KEYS) return false;
    Key& next = to.key[to.count];
    if (!from_hex(id, next.id, 32) || !key["keytype"].string().is("ecdsa") ||
        !key["scheme"].string().is("ecdsa-sha2-nistp256") ||
        !point_of(key["keyval"]["public"].string(), next.point))
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

bool version_of(const Json& body, uint32_t* version) {
  uint64_t found;
  if (!body["version"].number(MOST_VERSION, &found) || !found) return false;
  *version = static_cast<uint32_t>(found);
  return true;
}

bool of_type(const Json& body, const char* type, uint32_t* version, Fault& fault) {
  const Text spec = body["spec_version"].string();
  if (body["_type"].string().is(type) && version_of(body, version) && starts(spec, 0, "1.")) return true;
  return fault.set(Reason::SIGNATURE_INVALID, "a signed file is of another type, or without a version");
}

bool until(int64_t end, int64_t now, const char* what, Fault& fault) {
  return now < end || fault.set(Reason::METADATA_EXPIRED, what);
}
bool in_time(const Json& body, int64_t now, const char* what, Fault& fault) {
  const int64_t end = seconds_of(body["expires"].string());
  if (end < 0) return fault.set(Reason::SIGNATURE_INVALID, "a signed file does not say when it expires");
  return until(end, now, what, fault);
}

bool not_below(uint32_t version, uint32_t seen, const char* what, Fault& fault) {
  return version >= seen || fault.set(Reason::METADATA_ROLLBACK, what);
}

uint32_t two(Text t, uint32_t at) {
  uint64_t value;
  return from_decimal({t.at + at, 2}, 99, &value) ? static_cast<uint32_t>(value) : 100;
}

// What both files say of an image.
bool image_of(const Json& target, Order& to) {
  uint64_t size;
  if (!target["length"].number(0xFFFFFF00u, &size) || !size) return false;
  to.length = static_cast<uint32_t>(size);
  return from_hex(target["hashes"]["sha256"].string(), to.sha256, 32);
}

bool described_as(const Json& description, uint8_t out[32]) {
  return description.is_object() && digest_of(description.raw(), out);
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

bool log_of(const Json& shown, Log& to) {
  uint64_t size;
  if (!shown["size"].number(MOST_VERSION, &size) || !size) return false;
  to.size = static_cast<uint32_t>(size);
  return from_hex(shown["root"].string(), to.root, 32);
}

bool read_ordered(const Json& body, const Device& device, Order& order) {
  const Json targets = body["targets"], log = body["log"];
  if (log && !log_of(log, order.log)) return false;
  if (!targets.is_object()) return false;
  Members each(targets);
  if (!each.next()) return true;  // nothing ordered
  const Json custom = each.value["custom"];
  uint64_t attempt;
  if (!keep(each.name, order.path, sizeof order.path) || !image_of(each.value, order) ||
      !described_as(custom["image"], order.described) || !custom["attempt"].number(1000000, &attempt) ||
      !keep(custom["deployment"].string(), order.deployment, sizeof order.deployment) ||
      !custom["device_id"].string().is(device.device_id))
    return false;
  order.attempt = static_cast<uint32_t>(attempt);
  order.mandatory = custom["mandatory"].is_true();
  order.any = true;
  return !each.next();
}

}  // namespace

int64_t seconds_of(Text t) {
  if (t.size != 20 || t.at[4] != '-' || t.at[7] != '-' || t.at[10] != 'T' || t.at[13] != ':' || t.at[16] != ':' ||
      t.at[19] != 'Z')
    return -1;
  const uint32_t month = two(t, 5), day = two(t, 8), hour = two(t, 11), minute = two(t, 14), second = two(t, 17);
  const uint32_t century = two(t, 0), rest = two(t, 2);
  if (century > 99 || rest > 99 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 ||
      second > 60)
    return -1;
  // Days since 1 March of the year 0: years begin in March, so that the odd day comes last.
  const int64_t year = static_cast<int64_t>(century) * 100 + rest - (month < 3);
  const int64_t days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
  return (days - 719468) * 86400 + hour * 3600 + minute * 60 + second;
}

bool take_root(Repo repo, Text file, bool pinned, int64_t now, Keys& keys, Seen& seen, Fault& fault) {
  const bool image = repo == Repo::IMAGE;
  uint32_t& known = image ? keys.image_root : keys.director_root;
  KeySet& root_keys = image ? keys.image_root_keys : keys.director_root_keys;
  KeySet& next_keys = image ? keys.delegation_keys : keys.order_keys;
  Signed opened;
  uint32_t version;
  KeySet roots, targets;
  if (!open(file, MOST_ROOT, opened, fault)) return false;
  const Json all = opened.body["keys"], roles = opened.body["roles"];
  if (!keys_of(all, roles["root"], 2, roots) || !keys_of(all, roles["targets"], image ? 2 : 1, targets))
    return fault.set(Reason::SIGNATURE_INVALID, "a root's keys or thresholds are not ours");
  if (!pinned && !signed_by(opened, root_keys, "a new root is not signed by the old one's keys", fault)) return false;
  if (!signed_by(opened, roots, "a root is not signed by its own keys", fault)) return false;
  if (!of_type(opened.body, "root", &version, fault)) return false;
  if (!opened.body["repository"].string().is(image ? "image" : "director"))
    return fault.set(Reason::SIGNATURE_INVALID, "a root is of the other repository");
  if (!pinned && version != known + 1)
    return fault.set(Reason::METADATA_ROLLBACK, "a new root is not the next version");
  if (!pinned && !in_time(opened.body, now, "a new root has expired", fault)) return false;
  if (image) {
    if (!same(next_keys, targets)) keys.delegated = 0;  // until these keys have vouched for the delegation
    if (!outlives(targets, next_keys)) keys.delegation = 0;
  } else if (!outlives(targets, next_keys)) {
    seen.order = 0;
  }
  file_leaf(file, image ? "image" : "director", "root", version, image ? keys.image_root_leaf : keys.director_root_leaf);
  next_keys = targets;
  root_keys = roots;
  known = version;
  (image ? keys.image_root_until : keys.director_root_until) = seconds_of(opened.body["expires"].string());
  return true;
}

bool take_delegation(Text file, const char* product, int64_t now, Keys& keys, Seen& seen, Fault& fault) {
  Signed opened;
  uint32_t version;
  if (!open(file, MOST_ROOT, opened, fault) ||
      !signed_by(opened, keys.delegation_keys, "the delegation is not signed by two of its keys", fault) ||
      !of_type(opened.body, "targets", &version, fault) ||
      !not_below(version, keys.delegation, "the delegation went back to an older version", fault) ||
      !in_time(opened.body, now, "the delegation has expired", fault))
    return false;
  const Json delegations = opened.body["delegations"];
  KeySet found;
  for (Members each(delegations["roles"]); each.next() && !found.count;) {
    if (!each.value["name"].string().is(product)) continue;
    if (!its_paths(each.value["paths"], product) || !keys_of(delegations["keys"], each.value, 2, found))
      return fault.set(Reason::SIGNATURE_INVALID, "the product's release keys, threshold or paths are not ours");
  }
  if (!found.count) return fault.set(Reason::SIGNATURE_INVALID, "nobody signs for this device's product");
  if (!outlives(found, keys.release_keys)) seen.role = 0;
  keys.release_keys = found;
  keys.delegated = 1;
  keys.delegation = version;
  keys.delegation_until = seconds_of(opened.body["expires"].string());
  return true;
}

bool read_order(Text file, const Device& device, Text nonce, const Keys& keys, const Seen& seen, int64_t now,
                Order& order, Fault& fault) {
  order = Order();
  Signed opened;
  if (!open(file, MOST_ORDER, opened, fault) ||
      !signed_by(opened, keys.order_keys, "the order is not signed by the server's key", fault) ||
      !of_type(opened.body, "targets", &order.version, fault) ||
      !not_below(order.version, seen.order, "the order is older than the last one", fault))
    return false;
  const Text whose = opened.body["device_id"].string(), answered = opened.body["nonce"].string();
  if (!whose.is(device.device_id))
    return fault.set(Reason::SIGNATURE_INVALID, "the order is for another device");
  if (opened.body["delegations"]) return fault.set(Reason::SIGNATURE_INVALID, "the order delegates");
  if (nonce && !(answered.size == nonce.size && equal(answered.at, nonce.at, nonce.size)))
    return fault.set(Reason::METADATA_ROLLBACK, "the order answers another question: its nonce is not ours");
  if (!nonce && !now) return fault.set(Reason::METADATA_EXPIRED, "the clock is not set, and the order has no nonce");
  if (!in_time(opened.body, now, "the order has expired", fault) ||
      !until(keys.director_root_until, now, "the director's root has expired", fault))
    return false;
  if (!read_ordered(opened.body, device, order))
    return fault.set(Reason::SIGNATURE_INVALID, "the order names more than one image, or describes none, or no log");
  return true;
}

bool read_role(Text file, const Device& device, const Keys& keys, const Seen& seen, uint32_t floor, int64_t now,
               Order& order, Fault& fault) {
  Signed opened;
  uint32_t version;
  if (!keys.delegated)
    return fault.set(Reason::SIGNATURE_INVALID, "the image repository's keys do not vouch for any delegation");
  if (!open(file, MOST_ROLE, opened, fault) ||
      !signed_by(opened, keys.release_keys, "the release is not signed by two of its keys", fault) ||
      !of_type(opened.body, "targets", &version, fault) ||
      !not_below(version, seen.role, "the release's role went back to an older version", fault) ||
      !in_time(opened.body, now, "the release's signatures have expired", fault) ||
      !until(keys.delegation_until, now, "the delegation has expired", fault) ||
      !until(keys.image_root_until, now, "the image repository's root has expired", fault))
    return false;
  const Json target = opened.body["targets"].member(text(order.path)), said = target["custom"];
  if (!target || !of_product(order.path, device.product))
    return fault.set(Reason::SIGNATURE_INVALID, "no release key vouches for the ordered image");
  Order vouched;
  if (!image_of(target, vouched) || !described_as(said, vouched.described) || vouched.length != order.length ||
      !equal(vouched.sha256, order.sha256, 32) || !equal(vouched.described, order.described, 32))
    return fault.set(Reason::HASH_MISMATCH, "director and image repository disagree about the image");
  if (!fits(said, device.device_type)) return fault.set(Reason::WRONG_HARDWARE, "the image is for other hardware");
  uint64_t security = 0;
  if (!keep(said["version"].string(), order.image_version, sizeof order.image_version) ||
      !said["security_version"].number(MOST_VERSION, &security) || !said["kind"].string())
    return fault.set(Reason::SIGNATURE_INVALID, "the image's description is incomplete");
  if (security < floor)
    return fault.set(Reason::BELOW_SECURITY_FLOOR, "the image is below the security floor");
  order.security_version = static_cast<uint32_t>(security);
  order.role_version = version;
  file_leaf(file, "image", device.product, version, order.role_leaf);
  order_leaf(order, order.leaf);
  order.is_image = said["kind"].string().is("image");
  return true;
}

}  // namespace skylift
