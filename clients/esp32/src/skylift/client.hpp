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
  int64_t built = 0;               // when it was built, seconds since 1970: no clock is believed to be before
  uint32_t trial_seconds = 120;    // for the self-tests
  uint32_t download_seconds = 3600;
  uint32_t least_bytes_a_second = 64;
  uint32_t progress_percent = 10;  // how often progress is reported; 100: at begin and end
  uint32_t save_every = 65536;     // bytes: how much a power cut may cost, a multiple of a sector
  uint32_t poll_seconds = 0;       // at most between two checks; 0: as the server says
};

enum class Verdict : uint8_t { WAIT, PASS, FAIL };
class Client;

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

 protected:
  ~Hooks() = default;
};

enum class State : uint8_t {
  PIN, MEASURE, ENROLL, REPORT, CHECK, DIRECTOR_ROOT, IMAGE_ROOT, DELEGATION, ORDER, ROLE, LOG, ROOM,
  FETCH, PROGRESS, READ_BACK, INSTALLING, VALIDATING, ARM, RESTART, REFUSE, REST,
  TRIAL, FINISH, GIVE_UP, ROLL_BACK, HALT, COUNT
};
enum class Outcome : uint8_t { MORE, OK, NO, AWAY, BAD };  // AWAY: later; BAD: this update is over, `fault` says why

// --- what survives power cuts ------------------------------------------------------------------------------------
enum class Stage : uint8_t { IDLE, FETCHING, BOOTING };
enum class Said : uint8_t { NONE, DOWNLOADING, INSTALLING, VALIDATING, COMPLETE, FAILED, ROLLED_BACK };

struct Journal {
  Stage stage = Stage::IDLE;
  uint8_t slot = 0, tries = 0, armed = 0, by_delta = 0, resumed = 0, answered_at = 0;
  Said to_say = Said::NONE;  // a final report that nobody has heard yet
  Said ended = Said::NONE;   // what was said last
  Reason reason = Reason::NONE;
  uint16_t reserved = 0;
  uint32_t length = 0, attempt = 0, security_version = 0, delta_size = 0;
  uint32_t answered[4] = {0};  // orders that are over, by their checksum
  uint8_t sha256[32] = {0}, delta_sha256[32] = {0};
  char deployment[NAME] = {0}, url[160] = {0}, words[WORDS] = {0};
};
struct Offset {
  uint32_t at = 0;  // of the image: what lies before it stands in flash
};
struct Installed {
  uint32_t length = 0;  // 0: not known
  uint8_t sha256[32] = {0};
};
struct Facts {
  Seen seen;
  uint32_t floor = 0, enrolled = 0;
  Installed image[2];
  char token[NAME] = {0};
  Log log;  // which every later one must go on from
};

class Client {
 public:
  Client(Port& port, Hooks& hooks) : port_(port), hooks_(hooks) {}

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
  struct Hint {  // what the check's answer said; believed in nothing
    uint32_t order = 0, role = 0, root = 0, director_root = 0, delegation = 0, attempt = 0;
    char deployment[NAME] = {0}, url[160] = {0}, delta_url[160] = {0};
    bool delta = false;
    uint8_t sha256[32] = {0}, delta_sha256[32] = {0}, base_sha256[32] = {0};
    uint32_t delta_size = 0, delta_memory = 0;
  };

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
  Outcome tell(const char* path);
  Outcome exchange(const Ask& ask, uint8_t* to, uint32_t most);
  Outcome refused_or_away(const char* what);
  Outcome enroll();
  Outcome report();
  Outcome check();
  Outcome say_progress();
  Outcome say_installing();
  Outcome say_validating();
  Outcome say(Said what, int percent);
  Outcome rest();
  void body_of(Said what, int percent);
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
  void end_update(Said how, const Fault& why);
  bool is_answered(uint32_t tag) const;
  int64_t time() const;
  int percent() const;
  uint32_t hash_some(uint8_t slot, uint32_t length);

  // Small and often used first: short offsets are short instructions. Large ones last.
  Port& port_;
  Hooks& hooks_;
  State state_ = State::HALT;
  bool fresh_ = true;  // the state was just entered
  bool is_open_ = false, has_head_ = false, rang_ = false, back_ = false;
  bool begun_ = false, report_due_ = false;  // fetching
  uint8_t segments_ = 0, test_ = 0, marks_ = 0;
  uint32_t got_ = 0;  // bytes of the answer
  uint32_t opened_ms_ = 0, moved_ms_ = 0, window_ms_ = 0, window_bytes_ = 0;
  uint32_t wake_ms_ = 0, rest_ms_ = 0, away_ = 0;
  uint32_t begun_ms_ = 0, skip_ = 0, said_percent_ = 0, patch_at_ = 0, breaks_ = 0, saved_at_ = 0;
  uint32_t hashed_ = 0, segment_at_ = 0;
  Head head_;
  Config config_;
  DeltaRun delta_;
  Sha256 sha_;
  Fault fault_;
  Record<Offset> offset_;
  Record<Journal> journal_;
  Record<Facts> facts_;
  char nonce_[NONCE + 1];
  Hint hint_;
  Order order_;
  char path_[448], body_[720];
  SlotWriter writer_;
  uint8_t buffer_[PAGE];
  Record<Keys> keys_;
  // One room for what is never there together: an answer or a signed file; the delta decoder's tables.
  union Arena {
    char file[MOST_ROLE + 1];
    uint64_t delta[DELTA_MEMORY / 8];
  } arena_;
};

}  // namespace skylift
