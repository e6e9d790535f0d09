// The update client: asks, verifies, downloads, installs, tries, confirms or falls back.
//
// The caller owns the loop: `begin` once, then `step` again and again; each step moves at most one buffer, and says
// after how many milliseconds it wants to be called again. What is next is a table (machine.cpp) over the state, and
// after a power cut over what the key-value store and boot control say. Nothing is allocated, ever: a client is one
// object, made before the loop begins.
#pragma once
#include "crypto.hpp"
#include "delta.hpp"
#include "port.hpp"
#include "slot.hpp"
#include "store.hpp"
#include "trust.hpp"

namespace skylift {

// What the firmware is built with. Strings stay the caller's.
struct Config {
  const char *device_id = "", *device_type = "", *product = "", *version = "";
  const char* claim = "";        // enrolls this device once, with a token of its own making
  const char* token = "";        // instead of a claim: a token from the factory
  Text image_root, director_root;  // the factory's roots, as `skylift trust export` writes them
  uint32_t log_size = 0;           // the transparency log as it was then: entries, and the 32 bytes over them
  const uint8_t* log_root = nullptr;
  uint32_t security_version = 0;   // of this firmware: the floor is never below
  uint32_t built = 0;              // when it was built, seconds since 1970: no clock is believed to be before
  uint32_t trial_seconds = 120;    // for the self-tests
  uint32_t download_seconds = 3600;
  uint32_t least_bytes_a_second = 64;
  uint32_t progress_percent = 10;  // how often progress is reported; 100: at begin and end
  uint32_t save_every = 65536;     // bytes: how much a power cut may cost, a multiple of a sector
  uint32_t poll_seconds = 0;       // at most between two checks; 0: as the server says
  uint32_t health_seconds = 86400;  // how often, unasked, before a check, it says how it is; 0: never, nor asked
};

enum class Verdict : uint8_t { WAIT, PASS, FAIL };
class Client;

// A few numbers of a device: at most eight of them are said.
class Metrics {
 public:
  explicit Metrics(Line& to) : to_(to) {}
  // `name`: letters, digits, `-`, `_`. The last `decimals` digits stand behind the point: 3312 with 3 is 3.312.
  void add(const char* name, int32_t value, uint8_t decimals = 0);

 private:
  Line& to_;
  uint8_t count_ = 0;
};

// What the firmware knows better. Self-tests run on the trial boot, one after the other, until each has passed.
class Hooks {
 public:
  virtual Verdict network(Client& client);  // default: the server answers, whatever it says
  virtual Verdict sensors() { return Verdict::PASS; }
  virtual Verdict mqtt() { return Verdict::PASS; }
  virtual bool battery_is_good() { return true; }  // false: the update waits
  virtual bool may_restart() { return true; }      // false: the restart waits
  virtual void progress(int percent) { (void)percent; }
  virtual const char* trial_message() { return ""; }  // why a self-test failed, in the report
  virtual bool healthy() { return true; }             // how it is now: said at checks, and of an image that stays
  virtual void metrics(Metrics& to) { (void)to; }     // for operators who compare devices

 protected:
  ~Hooks() = default;
};

enum class State : uint8_t {
  HALT, PIN, MEASURE, ENROLL, REPORT, HEALTH, CHECK, DIRECTOR_ROOT, IMAGE_ROOT, DELEGATION, ORDER, ROLE, LOG, ROOM,
  FETCH, PROGRESS, READ_BACK, INSTALLING, VALIDATING, ARM, RESTART, REFUSE, REST,
  TRIAL, FINISH, GIVE_UP, ROLL_BACK, COUNT
};
enum class Outcome : uint8_t { MORE, OK, NO, AWAY, BAD };  // AWAY: later; BAD: this update is over, `fault` says why

// --- what survives power cuts ------------------------------------------------------------------------------------
enum class Stage : uint8_t { IDLE, FETCHING, BOOTING };
enum class Said : uint8_t { NONE, DOWNLOADING, INSTALLING, VALIDATING, COMPLETE, FAILED, ROLLED_BACK };

// Each all zero where nothing is known.
struct Journal {
  Stage stage;
  uint8_t slot, tries, armed, by_delta, resumed, answered_at;
  Said to_say;  // a final report that nobody has heard yet
  Said ended;   // what was said last
  Reason reason;
  uint16_t reserved;
  uint32_t length, attempt, security_version, delta_size;
  uint32_t answered[4];  // orders that are over, by their checksum
  uint8_t sha256[32], delta_sha256[32];
  char deployment[NAME], url[160], words[WORDS];
};
struct Offset {
  uint32_t at;  // of the image: what lies before it stands in flash
};
struct Installed {
  uint32_t length;  // 0: not known
  uint8_t sha256[32];
};
struct Facts {
  Seen seen;
  uint32_t floor, enrolled;
  Installed image[2];
  char token[NAME];
  Log log;  // which every later one must go on from
};

struct Hint {  // what the check's answer said; believed in nothing
  uint32_t order, role, root, director_root, delegation, attempt;
  char deployment[NAME], url[160], delta_url[160];
  bool delta;
  uint8_t sha256[32], delta_sha256[32], base_sha256[32];
  uint32_t delta_size, delta_memory;
};

// What a client remembers: all zero before it begins. Small and often used first: short offsets are short
// instructions. Large ones last.
struct Memory {
  State state_;
  bool fresh_;  // the state was just entered
  bool is_open_, has_head_, rang_, back_;
  bool begun_, report_due_;  // fetching
  uint8_t segments_, test_, marks_;
  uint32_t got_;  // bytes of the answer
  uint32_t opened_ms_, moved_ms_, window_ms_, window_bytes_;
  uint32_t wake_ms_, rest_ms_, away_, health_ms_;
  uint32_t begun_ms_, skip_, said_percent_, patch_at_, breaks_, saved_at_;
  uint32_t hashed_, segment_at_;
  const char* passed_;  // why a delta was of no use for this update
  Head head_;
  DeltaRun delta_;
  Sha256 sha_;
  Fault fault_;
  Record<Offset> offset_;
  Record<Journal> journal_;
  Record<Facts> facts_;
  char nonce_[NONCE + 1];
  Hint hint_;
  Order order_;
  char path_[448], body_[1024];
  SlotWriter writer_;
  uint8_t buffer_[PAGE];
  Record<Keys> keys_;
  // One room for what is never there together: an answer or a signed file; the delta decoder's tables.
  union Arena {
    char file[MOST_ROLE + 1];
    uint64_t delta[DELTA_MEMORY / 8];
  } arena_;
};

class Client : Memory {
 public:
  Client(Port& port, Hooks& hooks) : Memory(), port_(port), hooks_(hooks) {}

  void begin(const Config& config);
  uint32_t step();  // milliseconds until the next
  void finish();    // lets go of the network; `begin` may follow

  void ring() { rang_ = true; }       // the doorbell: check now
  void rollback() { back_ = true; }   // boot the other slot
  State state() const { return state_; }
  const Fault& fault() const { return fault_; }
  const char* token() const;
  uint32_t floor() const;
  bool running_sha256(uint8_t out[32]) const;
  // The way to the server, for self-tests: WAIT, then PASS once it has answered anything, FAIL if there is none.
  Verdict reach();

 private:
  friend struct Machine;

  // boot.cpp
  State first_state();
  Outcome pin();
  Outcome measure();
  Outcome trial();
  Outcome finish_trial();
  Outcome give_up();
  Outcome roll_back();
  // talk.cpp
  Outcome ask_for(const char* path, uint32_t most);
  Outcome get_file(uint32_t most, const char* missing);
  Outcome tell(const char* path);
  Outcome exchange(const Ask& ask, uint8_t* to, uint32_t most);
  Outcome refused_or_away(const char* what);
  Outcome enroll();
  Outcome report();
  Outcome health();
  Outcome check();
  Outcome say_progress();
  Outcome say_installing();
  Outcome say_validating();
  Outcome say(Said what, int percent);
  Outcome rest();
  void body_of(Said what, int percent);
  void put_health(Line& body);
  bool read_answer(const Json& answer);
  // order.cpp
  Outcome director_root();
  Outcome image_root();
  Outcome next_root(Repo repo, uint32_t known, uint32_t newest);
  Outcome delegation();
  Outcome order();
  Outcome role();
  Outcome log();
  Outcome room();
  Outcome refuse();
  bool wants_delta() const;
  // install.cpp
  Outcome fetch();
  Outcome fetch_open();
  Outcome fetch_head();
  Outcome fetch_some();
  Outcome fetch_delta();
  Outcome fetch_image(uint32_t n);
  Outcome fetch_done();
  Outcome take(const uint8_t* from, uint32_t n);
  Outcome fetch_broke(uint32_t retry_after, const char* why);
  Outcome no_delta(const char* why);
  Outcome from_the_start();
  Outcome read_back();
  Outcome arm();
  Outcome restart();
  bool same_chip(const uint8_t* head);
  // shared
  void become(State next);
  void close();
  Outcome later(uint32_t seconds, const char* why);
  Outcome bad(Reason reason, const char* words);
  bool save_journal();
  Outcome written(bool all);
  void end_update(Said how);  // for what `fault_` says
  bool is_answered(uint32_t tag) const;
  uint32_t time() const;
  int percent() const;
  uint32_t hash_some(uint8_t slot, uint32_t length);

  Port& port_;
  Hooks& hooks_;
  Config config_;
};

}  // namespace skylift
