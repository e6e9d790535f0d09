// Compact verification: what a microcontroller checks before it installs a byte. Pure: bytes and facts in, a verdict
// out; fetching files and keeping what was learned are the client's.
//
// The rules:
//  1. A file is `{"signatures":[...],"signed":X}`; X with its one escape `\n` undone is what was signed. X is hashed as
//     it came, and nothing is ever serialised again.
//  2. Nothing is believed before enough different keys have signed it. Keys come from the factory's roots, and from
//     what those vouch for.
//  3. Versions never fall. A key set that changes forgets the versions its predecessor has signed: a stolen key may
//     have told any.
//  4. The order is this device's, answers this question (nonce), and names at most one image.
//  5. The release keys' role describes the very same image: two of three people, offline.
//  6. The image is for this hardware and at or above the security floor.
//  7. The order, the role and both roots stand in the transparency log that the order shows, and that log goes on from
//     the one this device knows: nobody is shown what the others are not.
// Its hash decides in the end, over what stands in flash.
#pragma once
#include "json.hpp"
#include "reasons.hpp"

namespace skylift {

constexpr uint32_t MOST_ORDER = 4096, MOST_ROLE = 16384, MOST_ROOT = 16384, MOST_PROOFS = 16384;
constexpr uint32_t MOST_KEYS = 5, MOST_SIGNATURES = 64, MOST_VERSION = 0x7FFFFFFF;
constexpr uint32_t NAME = 65;  // a name or version of up to 64 characters, and its zero
constexpr uint32_t NONCE = 32;  // characters of a nonce: 16 bytes, hexadecimal

struct Key {
  uint8_t id[32], point[64];
};
struct KeySet {
  uint8_t count, threshold;
  Key key[MOST_KEYS];
};

// All of them are zero where nothing is known yet.
// What a device keeps of the files it has verified: written anew when keys change.
struct Keys {
  uint32_t image_root, director_root, delegation;  // versions
  uint32_t delegated;  // whether the image root's keys of today have vouched for the release keys
  uint32_t image_root_until, director_root_until, delegation_until;
  KeySet image_root_keys, delegation_keys, director_root_keys, order_keys, release_keys;
  uint8_t image_root_leaf[32], director_root_leaf[32];  // both roots, as the log has them
};
// The versions that must not fall.
struct Seen {
  uint32_t order, role;
};

// The transparency log up to some entry: how many entries, and the root over them. 0: none was ever seen.
struct Log {
  uint32_t size;
  uint8_t root[32];
};

// An image as a signed file describes it. `description`: the digest of what is said of it.
struct Described {
  uint32_t length;
  uint8_t sha256[32], description[32];
};
// What is ordered, once everything is verified. Strings are zero-terminated.
struct Order : Described {
  bool any;       // false: nothing is ordered
  bool is_image;  // not a configuration
  bool mandatory;
  uint32_t version, role_version, attempt, security_version;
  Log log;                          // as the order shows it
  uint8_t leaf[32], role_leaf[32];  // the order and the role, as the log has them
  char path[3 * NAME], image_version[NAME], deployment[NAME];
};

struct Device {
  const char *device_id, *device_type, *product;
};

enum class Repo : uint8_t { IMAGE, DIRECTOR };

// Roots. The factory's own is pinned (`pinned`): signed by itself is enough. Any other must be the next version,
// signed by the old root's keys and by its own. Changes `keys` and `seen` only where it holds.
bool take_root(Repo repo, Text file, bool pinned, Keys& keys, Seen& seen, Fault& fault);
// The image repository's targets: who signs `product`.
bool take_delegation(Text file, const char* product, uint32_t now, Keys& keys, Seen& seen, Fault& fault);
// The order, signed by the server's online key. `nonce` is what the check sent; `now` 0: no clock, no build time; then only
// the nonce proves that it is new, and must be there.
bool read_order(Text file, const Device& device, Text nonce, const Keys& keys, const Seen& seen, uint32_t now,
                Order& order, Fault& fault);
// The product's role: whether it vouches for the very image of this order, for this hardware, at or above the floor.
// The two files are never in memory at the same time: of the image's description the digest is compared.
bool read_role(Text file, const Device& device, const Keys& keys, const Seen& seen, uint32_t floor, uint32_t now,
               Order& order, Fault& fault);

// Whether the log that the order shows may be asked for its proofs: `known` obliges it. `leaf`: what they are about.
constexpr uint32_t LEAVES = 4;
bool shows_log(const Log& known, const Order& order, Fault& fault);
void leaves_of(const Keys& keys, const Order& order, const uint8_t* leaf[LEAVES]);
// The log's proofs: it goes on from `known`, and has the leaves.
bool read_proofs(Text file, const Keys& keys, const Log& known, const Order& order, Fault& fault);

// Seconds since 1970 of `2026-11-28T12:00:00Z`, as far as 32 bits go; false for anything else.
bool seconds_of(Text moment, uint32_t* seconds);

}  // namespace skylift
