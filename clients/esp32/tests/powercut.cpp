// Power cuts: the update is run once and its flash operations counted; then the power is cut at each operation, at
// three places inside it, from every starting chip; then at two. Whatever happens, something that was verified boots,
// and in the end the chip runs the old image or the new one.
//
// With "all" for pairs it is every pair there is: each operation and place, and then each of the life that follows. A
// chip that lost its power, or restarts, is its flash and nothing else: how it ends from some flash on is found out once,
// whichever cuts and boots led there.
//
// usage: powercut FOLDER [pairs | all] [step]      FOLDER: see Scene; prints one JSON object
#include <array>
#include <cstdlib>
#include <unordered_map>

#include "cuts.hpp"

namespace {

using namespace skylift;
using desk::Ota;

uint32_t slot_size = 160 << 10;
constexpr int MOST_BOOTS = 24, MOST_STEPS = 200000;

// FOLDER/old.bin, new.bin; image.root, director.root; files/NAME ('/' written as '!'); check.json, and
// check-delta.json; words: device_id device_type product old new now
struct Scene {
  desk::Answers answers, by_delta;
  std::string old_image, new_image, image_root, director_root, id, type, product, old_version, new_version;
  uint32_t now = 0;
};

struct Result {
  bool unbootable = false, stuck = false;
  int unverified = 0;
  std::string version;     // confirmed at the end
  std::vector<std::string> reports;
  uint64_t operations = 0, written = 0;
};

class TrialHooks final : public Hooks {
 public:
  Verdict sensors() override { return good ? Verdict::PASS : Verdict::FAIL; }
  bool good = true;
};

// The device, boot by boot, until it rests with nothing left to do.
struct Life {
  const Scene& scene;
  const desk::Answers& answers;
  desk::Flash& flash;
  desk::BootLoader loader;
  bool bad_image = false, crashes = false, verbose = false;
  desk::MemoryPort* port = nullptr;
  Client* client = nullptr;

  Life(const Scene& s, const desk::Answers& a, desk::Flash& f) : scene(s), answers(a), flash(f), loader(f) {
    loader.believes = true;
  }
  ~Life() {
    delete client;
    delete port;
  }

  // False: the update has ended, the device rests.
  bool boot(Result& result, std::vector<std::string>& reports) {
    const int slot = loader.boot();
    if (slot < 0) {
      result.unbootable = true;
      return false;
    }
    const uint8_t* image = flash.at(flash.slot(slot));
    const auto stands = [&](const std::string& which) { return std::memcmp(image, which.data(), which.size()) == 0; };
    if (!stands(scene.old_image) && !stands(scene.new_image)) {
      result.unverified++;
      return false;
    }
    const desk::AppDescription app = desk::described(image);
    const bool is_new = app.version == scene.new_version;
    if (is_new && crashes) return true;
    delete client;
    delete port;
    port = new desk::MemoryPort(flash, loader, answers);
    port->when = scene.now;
    port->verbose = verbose;
    TrialHooks hooks;
    hooks.good = !(is_new && bad_image);
    client = new Client(*port, hooks);
    Config config;
    config.device_id = scene.id.c_str();
    config.device_type = scene.type.c_str();
    config.product = scene.product.c_str();
    config.version = app.version.c_str();
    config.token = "t";
    config.image_root = {scene.image_root.data(), static_cast<uint32_t>(scene.image_root.size())};
    config.director_root = {scene.director_root.data(), static_cast<uint32_t>(scene.director_root.size())};
    config.save_every = 16384;
    client->begin(config);
    result.version = app.version;
    for (int k = 0; k < MOST_STEPS; k++) {
      client->step();
      reports.insert(reports.end(), port->reports.begin(), port->reports.end());
      port->reports.clear();
      if (port->wants_restart) return true;
      if (client->state() == State::REST && !loader.pending()) return false;
    }
    result.stuck = true;
    return false;
  }
};

// One device's whole life: cuts at the operations of `first`, then (counted from that boot on) of `second`.
Result live(Life& life, desk::Cut first, desk::Cut second) {
  static Result result;
  static std::vector<std::string> reports;
  static desk::Cut next;
  static int boots;
  result = Result();
  reports.clear();
  next = second;
  boots = 0;
  life.flash.counters = desk::Counters();
  life.flash.cut = first;
  if (setjmp(life.flash.off)) {
    life.flash.cut = next;
    if (next.at) life.flash.cut.at += life.flash.counters.operations;
    next = desk::Cut();
  }
  while (boots++ < MOST_BOOTS)
    if (!life.boot(result, reports)) break;
  if (boots > MOST_BOOTS) result.stuck = true;
  result.operations = life.flash.counters.operations;
  result.written = life.flash.counters.written;
  result.reports = reports;
  life.flash.cut = desk::Cut();
  return result;
}

struct Tally {
  uint64_t lives = 0, cuts = 0, pairs = 0, chips = 0, unbootable = 0, unverified = 0, stuck = 0, neither = 0;
  std::map<std::string, uint64_t> ends;
};

void count(Tally& tally, const Scene& scene, const Result& found, uint32_t cuts) {
  tally.lives++;
  tally.cuts += cuts;
  tally.unbootable += found.unbootable;
  tally.unverified += static_cast<uint64_t>(found.unverified);
  tally.stuck += found.stuck;
  tally.neither += found.version != scene.old_version && found.version != scene.new_version;
  tally.ends[found.version]++;
}

void add(Tally& to, const Tally& more) {
  to.lives += more.lives, to.cuts += more.cuts, to.pairs += more.pairs, to.chips += more.chips;
  to.unbootable += more.unbootable, to.unverified += more.unverified, to.stuck += more.stuck, to.neither += more.neither;
  for (const auto& [name, n] : more.ends) to.ends[name] += n;
}

// --- every pair -----------------------------------------------------------------------------------------------------------

using Chip = std::vector<uint8_t>;

struct Print {  // of a flash: 128 bits, changed word by word
  uint64_t a = 0, b = 0;
  bool operator==(const Print& other) const { return a == other.a && b == other.b; }
};
struct Hash {
  size_t operator()(const Print& print) const { return print.a; }
};

uint64_t mixed(uint64_t x) {
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93ull;
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93ull;
  return x ^ x >> 32;
}

void turn(Print& print, const uint8_t* bytes, uint32_t from, uint32_t to) {
  for (uint32_t at = from & ~7u; at < to; at += 8) {
    uint64_t word;
    std::memcpy(&word, bytes + at, 8);
    print.a ^= mixed(word + 0x9e3779b97f4a7c15ull * (at + 1));
    print.b ^= mixed((word ^ 0x5851f42d4c957f2dull) + 0xda942042e4dd58b5ull * (at + 1));
  }
}

// Every chip that a cut of the power can leave of one life: at each operation, in four places of it.
class Cutter final : public desk::Watch {
 public:
  Cutter(const desk::Flash& flash, std::unordered_map<Print, uint64_t, Hash>& times) : flash_(flash), times_(times) {
    turn(print_, flash.at(0), 0, flash.size());
  }
  void before(uint32_t where, const uint8_t* from, uint32_t n) override {
    for (int quarters = 0; quarters <= 4; quarters++) {
      uint8_t* was = const_cast<uint8_t*>(flash_.at(0));
      std::memcpy(kept_.data(), was + where, n);
      Print print = print_;
      turn(print, was, where, where + n);
      desk::Flash::tear(was, where, from, n, quarters);
      turn(print, was, where, where + n);
      if (quarters < 4 && times_[print]++ == 0) left.emplace_back(print, flash_.copy());
      std::memcpy(was + where, kept_.data(), n);
      if (quarters == 4) print_ = print;
    }
    operations++;
  }
  std::vector<std::pair<Print, Chip>> left;  // those that were not seen before
  uint64_t operations = 0;

 private:
  const desk::Flash& flash_;
  std::unordered_map<Print, uint64_t, Hash>& times_;  // how many cuts leave this chip
  Print print_;
  std::array<uint8_t, desk::SECTOR> kept_;
};

struct Pairs {
  std::unordered_map<Print, uint64_t, Hash> once, twice;
  std::unordered_map<Print, uint64_t, Hash> operations;  // of the life after one cut
};

// How chips end, by their flash when they boot, one kind of update at a time.
struct End {
  Result result;
  int boots = 0;
};
using Ends = std::unordered_map<Print, End, Hash>;

// From this boot to the end, or to a boot whose end is known.
Result live_on(Life& life, Ends& ends) {
  std::vector<Print> way;
  std::vector<std::string> reports;
  End end;
  for (;;) {
    Print now;
    turn(now, life.flash.at(0), 0, life.flash.size());
    const auto known = ends.find(now);
    if (known != ends.end()) {
      end = known->second;
      break;
    }
    way.push_back(now);
    end.result.stuck = way.size() > MOST_BOOTS;
    if (end.result.stuck || !life.boot(end.result, reports)) break;
  }
  while (!way.empty()) {
    end.boots++;
    end.result.stuck |= end.boots > MOST_BOOTS;
    ends[way.back()] = end;
    way.pop_back();
  }
  return end.result;
}

// One start and one kind of update: each chip that one cut leaves lives on, is cut everywhere, and each that two leave
// lives to its end. `lived(chip, watch)` lives one life.
template <typename Lived>
void every_pair_of(const Chip& start, desk::Flash& flash, Pairs& pairs, Tally& tally, Lived lived) {
  std::unordered_map<Print, uint64_t, Hash> here;
  flash.restore(start);
  Cutter first(flash, here);
  lived(start, &first);
  for (const auto& [print, chip] : first.left) {
    const uint64_t times = here[print];
    tally.cuts += times;
    if (pairs.once.count(print)) {  // another start came by the same chip
      tally.pairs += times * 4 * pairs.operations[print];
      continue;
    }
    pairs.once[print] = 1;
    tally.chips++;
    flash.restore(chip);
    Cutter second(flash, pairs.twice);
    lived(chip, &second);
    pairs.operations[print] = second.operations;
    tally.pairs += times * 4 * second.operations;
    tally.chips += second.left.size();
    for (const auto& each : second.left) lived(each.second, nullptr);
  }
}

std::string text_of(const std::map<std::string, uint64_t>& some) {
  std::string all;
  for (const auto& [name, n] : some) all += (all.empty() ? "\"" : ", \"") + name + "\": " + std::to_string(n);
  return all;
}

}  // namespace

int main(int words, char** word) {
  if (words < 2) return 2;
  const std::string folder = word[1];
  const bool every_pair = words > 2 && !std::strcmp(word[2], "all");
  const uint64_t pairs = words > 2 ? std::strtoull(word[2], nullptr, 10) : 0;
  const uint64_t step = words > 3 ? std::strtoull(word[3], nullptr, 10) : 1;
  Scene scene;
  std::ifstream about(folder + "/words");
  about >> scene.id >> scene.type >> scene.product >> scene.old_version >> scene.new_version >> scene.now;
  scene.old_image = desk::contents(folder + "/old.bin");
  scene.new_image = desk::contents(folder + "/new.bin");
  scene.image_root = desk::contents(folder + "/image.root");
  scene.director_root = desk::contents(folder + "/director.root");
  std::ifstream list(folder + "/list");
  for (std::string path, file; list >> path >> file;) scene.answers.files[path] = desk::contents(folder + "/" + file);
  scene.answers.check = desk::contents(folder + "/check.json");
  scene.answers.image_version = scene.new_version;
  scene.by_delta = scene.answers;
  scene.by_delta.check = desk::contents(folder + "/check-delta.json");

  if (every_pair) slot_size = (static_cast<uint32_t>(scene.new_image.size()) / desk::SECTOR + 2) * desk::SECTOR;
  desk::Flash flash(slot_size);
  // Where a life may begin: from the factory; after an update and back; with rubbish in the idle slot; with an empty
  // and with a torn key-value store.
  std::map<std::string, std::vector<uint8_t>> starts;
  {
    Life life(scene, scene.answers, flash);
    life.loader.provision(scene.old_image);
    starts["factory"] = flash.copy();
    Result done = live(life, {}, {});
    if (done.version != scene.new_version || done.reports != std::vector<std::string>{"complete"}) {
      std::fprintf(stderr, "without cuts it does not update: %s, %zu reports\n", done.version.c_str(), done.reports.size());
      return 1;
    }
    flash.restore(starts["factory"]);
    life.bad_image = true;
    done = live(life, {}, {});
    if (done.version != scene.old_version || done.reports != std::vector<std::string>{"rolled_back"}) {
      std::fprintf(stderr, "a bad image does not fall back: %s\n", done.version.c_str());
      return 1;
    }
    // The journal forgets that this order is over, so that the same one can be begun again on a used chip.
    for (uint32_t k = 2; k < 4; k++) flash.erase(k * desk::SECTOR);
    starts["fell back before"] = flash.copy();
    flash.restore(starts["factory"]);
    for (uint32_t at = 0; at < slot_size; at += desk::SECTOR) {
      std::vector<uint8_t> rubbish(desk::SECTOR, static_cast<uint8_t>(at >> 12));
      flash.write(flash.slot(1) + at, rubbish.data(), desk::SECTOR);
    }
    starts["rubbish in the idle slot"] = flash.copy();
    flash.restore(starts["factory"]);
    for (uint32_t k = 2; k < 2 + desk::KEYS; k++) {
      std::vector<uint8_t> torn(100, static_cast<uint8_t>(0x40 + k));
      flash.write(k * desk::SECTOR, torn.data(), 100);
    }
    starts["torn key-value store"] = flash.copy();
  }

  Tally tally;
  Pairs every[4];
  Ends ends[4];
  uint64_t image_written = 0, random = 12345;
  for (const auto& [name, start] : starts) {
    for (int kind = 0; kind < 4; kind++) {  // whole image, delta, an image that fails its tests, one that crashes
      const desk::Answers& answers = kind == 1 ? scene.by_delta : scene.answers;
      const auto once = [&](desk::Cut first, desk::Cut second) {
        flash.restore(start);
        Life life(scene, answers, flash);
        life.bad_image = kind == 2;
        life.crashes = kind == 3;
        return live(life, first, second);
      };
      const Result whole = once({}, {});
      count(tally, scene, whole, 0);
      const bool ends_new = whole.version == scene.new_version;
      if (ends_new != (kind < 2) || whole.unbootable || whole.unverified) {
        std::fprintf(stderr, "%s, kind %d, without a cut: %s\n", name.c_str(), kind, whole.version.c_str());
        return 1;
      }
      if (kind == 0 && name == "factory") image_written = whole.written;
      if (every_pair) {
        Tally part;
        every_pair_of(start, flash, every[kind], part, [&](const Chip& chip, desk::Watch* watch) {
          flash.restore(chip);
          Life life(scene, answers, flash);
          life.bad_image = kind == 2;
          life.crashes = kind == 3;
          flash.watch = watch;
          const Result found = watch ? live(life, {}, {}) : live_on(life, ends[kind]);
          flash.watch = nullptr;
          count(part, scene, found, 0);
          if (found.unbootable || found.unverified || found.stuck)
            std::fprintf(stderr, "%s, kind %d, after two cuts\n", name.c_str(), kind);
        });
        add(tally, part);
        std::fprintf(stderr, "%s, kind %d: %llu pairs of cuts, %llu lives\n", name.c_str(), kind,
                     static_cast<unsigned long long>(part.pairs), static_cast<unsigned long long>(part.lives));
        continue;
      }
      for (uint64_t at = 1; at <= whole.operations; at += step)
        for (int part = 0; part < 4; part++) {
          const Result found = once({at, part}, {});
          count(tally, scene, found, 1);
          if (found.unbootable || found.unverified || found.stuck)
            std::fprintf(stderr, "%s, kind %d, cut at %llu.%d: %s%s%s\n", name.c_str(), kind, static_cast<unsigned long long>(at), part,
                         found.unbootable ? "unbootable " : "", found.unverified ? "unverified " : "", found.stuck ? "stuck" : "");
        }
      for (uint64_t k = 0; k < pairs; k++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        const desk::Cut first = {1 + (random >> 33) % whole.operations, static_cast<int>(random >> 20 & 3)};
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        const desk::Cut second = {1 + (random >> 33) % whole.operations, static_cast<int>(random >> 20 & 3)};
        const Result found = once(first, second);
        count(tally, scene, found, 2);
        tally.pairs++;
        if (found.unbootable || found.unverified || found.stuck)
          std::fprintf(stderr, "%s, kind %d, cuts at %llu.%d and %llu.%d\n", name.c_str(), kind,
                       static_cast<unsigned long long>(first.at), first.part, static_cast<unsigned long long>(second.at), second.part);
      }
    }
  }
  std::printf("{\"starts\": %zu, \"lives\": %llu, \"cuts\": %llu, \"pairs\": %llu, \"chips\": %llu, \"unbootable\": %llu, \"unverified_boots\": %llu, \"stuck\": %llu, "
              "\"neither_old_nor_new\": %llu, \"ends\": {%s}, \"image\": %zu, \"written\": %llu}\n",
              starts.size(), static_cast<unsigned long long>(tally.lives), static_cast<unsigned long long>(tally.cuts),
              static_cast<unsigned long long>(tally.pairs), static_cast<unsigned long long>(tally.chips),
              static_cast<unsigned long long>(tally.unbootable), static_cast<unsigned long long>(tally.unverified),
              static_cast<unsigned long long>(tally.stuck), static_cast<unsigned long long>(tally.neither),
              text_of(tally.ends).c_str(), scene.new_image.size(), static_cast<unsigned long long>(image_written));
  return tally.unbootable || tally.unverified || tally.stuck || tally.neither;
}
