// The vectors of conformance/trust, read as lines of tab-separated words from stdin (tests/clients/test_esp32_units.py
// writes them); one line of judgement for each.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "../src/skylift/crypto.hpp"
#include "../src/skylift/trust.hpp"

using namespace skylift;

static std::string folder;

static std::string file(const std::string& name) {
  std::ifstream in(folder + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
static Text as_text(const std::string& some) { return {some.data(), static_cast<uint32_t>(some.size())}; }
static uint32_t number(const std::string& word) { return static_cast<uint32_t>(std::stoul(word)); }

static std::vector<std::string> split(const std::string& line, char by) {
  std::vector<std::string> found;
  std::stringstream in(line);
  for (std::string word; std::getline(in, word, by);) found.push_back(word);
  return found;
}

// name image_root director_root delegations delegation_version order_version role_version floor log_size log_root
// nonce now roots delegations order role proofs; "-" for none; roots: repository=file,...
static void judge(const std::vector<std::string>& w, const Device& device) {
  Keys keys = {};
  Seen seen = {};
  Fault fault = {};
  Order order = {};
  Log log = {};
  log.size = number(w[8]);
  if (w[9] != "-") from_hex(as_text(w[9]), log.root, sizeof log.root);
  const uint32_t now = w[11] == "-" ? 0 : number(w[11]);
  const std::string image_root = file(w[1]), director_root = file(w[2]);
  bool good = take_root(Repo::IMAGE, as_text(image_root), true, keys, seen, fault) &&
              take_root(Repo::DIRECTOR, as_text(director_root), true, keys, seen, fault);
  if (w[3] != "-") {
    Fault ignored = {};
    const std::string stored = file(w[3]);
    take_delegation(as_text(stored), device.product, 0, keys, seen, ignored);
  }
  keys.delegation = number(w[4]);
  seen.order = number(w[5]);
  seen.role = number(w[6]);
  if (w[12] != "-") {
    for (const std::string& root : split(w[12], ',')) {
      const std::vector<std::string> parts = split(root, '=');
      const std::string body = file(parts[1]);
      good = good && take_root(parts[0] == "image" ? Repo::IMAGE : Repo::DIRECTOR, as_text(body), false, keys, seen, fault);
    }
  }
  if (w[13] != "-") {
    const std::string body = file(w[13]);
    good = good && take_delegation(as_text(body), device.product, now, keys, seen, fault);
  }
  const std::string order_file = file(w[14]), role_file = w[15] == "-" ? "" : file(w[15]);
  const std::string proofs = w[16] == "-" ? "" : file(w[16]);
  const Text nonce = w[10] == "-" ? Text() : as_text(w[10]);
  good = good && read_order(as_text(order_file), device, nonce, keys, seen, now, order, fault);
  if (good && order.any) good = read_role(as_text(role_file), device, keys, seen, number(w[7]), now, order, fault);
  if (good && order.any && (log.size || w[16] != "-")) {  // a client that asks no log takes what none is pinned for
    good = shows_log(log, order, fault) && read_proofs(as_text(proofs), keys, log, order, fault);
    log = order.log;
  }
  if (!good) {
    std::printf("refuse\t%s\t%s\n", name_of(fault.reason), fault.words);
    return;
  }
  if (!order.any) {
    std::printf("nothing\t%u\t%u\n", order.version, seen.role);
    return;
  }
  char sha[65], root[65];
  Line(sha, sizeof sha).hex(order.sha256, 32);
  Line(root, sizeof root).hex(log.root, log.size ? 32 : 0);
  std::printf("install\t%s\t%u\t%s\t%s\t%u\t%s\t%s\t%u\t%u\t%u\t%u\t%s\n", order.path, order.length, sha, order.image_version,
              order.security_version, order.is_image ? "image" : "other", order.deployment, order.attempt, order.version,
              order.role_version, log.size, root);
}

static std::string bytes(const std::string& hex) {
  std::string found(hex.size() / 2, 0);
  from_hex(as_text(hex), reinterpret_cast<uint8_t*>(&found[0]), static_cast<uint32_t>(found.size()));
  return found;
}

int main(int count, char** words) {
  const std::string what = count > 1 ? words[1] : "";
  if (what == "trust" && count == 6) {
    folder = words[2];
    const Device device = {words[3], words[4], words[5]};
    for (std::string line; std::getline(std::cin, line);) judge(split(line, '\t'), device);
    return 0;
  }
  if (what == "p256") {  // key digest signature, hexadecimal
    for (std::string line; std::getline(std::cin, line);) {
      const std::vector<std::string> w = split(line, ' ');
      const std::string key = bytes(w[0]), digest = bytes(w[1]), signature = bytes(w.size() > 2 ? w[2] : "");
      std::puts(p256_verify(reinterpret_cast<const uint8_t*>(key.data()), reinterpret_cast<const uint8_t*>(digest.data()),
                            reinterpret_cast<const uint8_t*>(signature.data()), static_cast<uint32_t>(signature.size()))
                    ? "good"
                    : "bad");
    }
    return 0;
  }
  if (what == "sha256") {
    for (std::string line; std::getline(std::cin, line);) {
      const std::string body = bytes(line);
      Sha256 sha;
      uint8_t digest[32];
      sha.begin();
      for (size_t at = 0, part = 1; at < body.size(); at += part, part = part * 3 % 131 + 1)
        sha.add(body.data() + at, part < body.size() - at ? part : body.size() - at);
      sha.end(digest);
      char hex[65];
      Line(hex, sizeof hex).hex(digest, 32);
      std::puts(hex);
    }
    return 0;
  }
  if (what == "json") {  // a text a line, hexadecimal: whether it is JSON, and whether it is canonical
    for (std::string line; std::getline(std::cin, line);) {
      const std::string body = bytes(line);
      std::printf("%d%d\n", Json::parse(as_text(body)) ? 1 : 0, Json::parse(as_text(body), true) ? 1 : 0);
    }
    return 0;
  }
  std::fputs("usage: vectors trust FOLDER DEVICE TYPE PRODUCT | p256 | sha256 | json\n", stderr);
  return 2;
}
