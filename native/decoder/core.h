/* What the decoder's and the encoder's parts share. */
#ifndef SD_CORE_H
#define SD_CORE_H
#include "skydelta.h"
#ifdef SD_FREESTANDING /* no headers of a C library, only these four of its functions */
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
void *memmove(void *, const void *, size_t);
int memcmp(const void *, const void *, size_t);
#else
#include <string.h>
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int64_t i64;

/* Addresses, and the way from one to another. SD_NARROW: a decoder for machines of 32 bits alone counts in 32, and
 * makes the same of every patch, without the arithmetic on upper halves. */
#ifdef SD_NARROW
typedef u32 sd_wide;
typedef i32 sd_gap;
#define SD_WIDTH 32
#else
typedef u64 sd_wide;
typedef i64 sd_gap;
#define SD_WIDTH 64
#endif
/* What only the side that makes patches knows: nothing, and no code for it, in a decoder alone. */
#ifdef SD_DECODER_ONLY
#define SD_MAKES(known) (0 ? (known) : 0)
#else
#define SD_MAKES(known) (known)
#endif

static inline u32 sd_l16(const u8 *p) { return p[0] | (u32)p[1] << 8; }
static inline u32 sd_l32(const u8 *p) { return sd_l16(p) | sd_l16(p + 2) << 16; }
static inline u64 sd_l64(const u8 *p) { return sd_l32(p) | (u64)sd_l32(p + 4) << 32; }
static inline u32 sd_mix(u32 a, u32 b)
{
    u32 h = a * 0x9E3779B1u ^ (b + 0x7F4A7C15u) * 0x85EBCA6Bu;
    h ^= h >> 15;
    h *= 0xC2B2AE35u;
    return h ^ h >> 13;
}

#define SD_NONE UINT32_MAX
#define SD_HEADER (4 + 1 + 1 + 2 + 2 + 5 * 4 + 2 * SD_DIGEST + 4) /* bytes of header */
#define SD_MOST_PRIME (4u << 20) /* bytes of base that a literal model may be taught: they cost time, not bytes */

/* --- predict.c: fields that hold addresses ---------------------------------------------------------- */
typedef struct {
    const u8 *p;   /* the field's first byte */
    u32 back, fwd; /* bytes that may be read before it, and from it on */
    sd_wide pc;    /* its address */
} sd_view;

typedef struct sd_form {
#ifndef SD_MCU
    const char *name;
#endif
    u8 len, align; /* bytes; align: of the address */
    u8 flags;
    sd_wide mask, value, field; /* it is one when word & mask == value; the bits that hold the address */
    int (*get)(const sd_view *v, sd_wide word, sd_wide *target);
    sd_wide (*put)(sd_wide word, sd_wide pc, sd_wide target);
} sd_form;
enum {
    SD_UNIT = 1,     /* only where an instruction starts */
    SD_ANYWHERE = 2, /* a target outside the image still moves with the code (relative calls) */
    SD_DATA = 4,     /* not where code is mapped */
    SD_HIGH = 8      /* half an address: nothing is learned from it */
};
typedef struct {
    const sd_form *forms;
    u8 count, step; /* step: of addresses at which a form can start */
    sd_wide code_from, code_to, /* code is mapped here */
        away_from, away_to; /* addresses outside the image that may be meant */
} sd_machine;
extern const sd_machine sd_machines[SD_ARCHES];
u32 sd_unit_length(int arch, const u8 *p, sd_wide pc, u32 fwd);
sd_wide sd_word(const u8 *p, u32 len);

/* --- model.c: adaptive probabilities, mixed ---------------------------------------------------------- */
#define SD_INPUTS 12
typedef struct {
    u32 slots, pairs, links, history, sets, seen; /* numbers of entries in each table */
    u32 memory; /* bytes, all told: what the profile promises */
    u8 lazy;    /* 1: a slot is made at the first surprise only */
    u8 rate;    /* how far counters may settle, 0..31 */
} sd_size;
extern const sd_size sd_sizes[4];
#ifdef SD_MCU /* the small profiles only: what the large one needs is left out */
#define SD_LARGE(w) 0
#else
#define SD_LARGE(w) ((w)->size->history != 0)
#endif

typedef struct {
    u16 *p;  /* P(1), 16 bits */
    u8 *s;   /* count 5 bits, check 3 bits */
    u32 n;
    u8 lazy, rate;
} sd_slots;

typedef struct {
    int encoding, failed;
    u32 range, code;
    const sd_io *io;
    u8 in[64];
    u32 at, have, beyond, left; /* left: bytes not yet asked for */
    /* encoder */
    u64 low;
    u32 pending;
    u8 cache, started;
    u8 *out;
    size_t length, room;
} sd_coder;

void sd_coder_start_decode(sd_coder *c);
void sd_coder_start_encode(sd_coder *c);
void sd_coder_drain(sd_coder *c);
void sd_coder_finish(sd_coder *c);
int sd_bit(sd_coder *c, int bit, u32 p1);

typedef struct {
    sd_slots slots;
    i32 *weights; /* sets x SD_INPUTS */
    u32 sets;
    i32 in[SD_INPUTS];
    u32 slot[SD_INPUTS], key[SD_INPUTS];
    int n;
} sd_mixer;
void sd_mixer_clear(sd_mixer *m);
void sd_add(sd_mixer *m, u32 key);
int sd_mixed(sd_mixer *m, sd_coder *c, int bit, u32 set_a, u32 set_b, int lazy);
void sd_teach(sd_mixer *m, const u32 *contexts, const u8 *place, u32 n, u8 byte);
i32 sd_stretch(u32 p16);
u32 sd_squash(i32 x);
int sd_plain(sd_coder *c, u16 *p, int bit);

/* --- the walk that both sides make ---------------------------------------------------------------------- */
typedef struct {
    u32 at, from, len; /* target, base, bytes */
    u32 kept;          /* in the decoder's memory, so that addresses are looked up in it */
} sd_match;

typedef struct {
    u32 key;
    i32 delta;
} sd_link;

typedef struct {
    u16 check;
    u8 value, count;
} sd_pair;

#define SD_TAIL 128 /* bytes of the image that stay readable behind the writer */
#define SD_OUT 512

typedef struct sd_walk {
    sd_coder c;
    sd_mixer m;
    sd_header h;
    const sd_size *size;
    const sd_machine *machine;
    const u8 *base, *target; /* target: encoder */
    u32 base_size, target_size;
    sd_segment old_seg[SD_MAX_SEGMENTS], new_seg[SD_MAX_SEGMENTS];
    u32 old_segs, new_segs;
    u8 *match_mem; /* packed, see script.c */
    u32 width, matches;
    sd_link *links;
    u32 link_n;
    sd_pair *pairs;
    u32 pair_n;
    u32 *seen; /* match model: where these bytes were last */
    u32 seen_n;
    u8 *history; /* the image's last bytes, for the match model */
    u32 history_n;
    u16 nums[11][68], blocks[256], pages[4];
    u32 block_hist, page_hist;
    const sd_match *given; /* encoder: what comes next */
    /* walking */
    u8 *out;
    u32 out_n; /* bytes in out, SD_TAIL of them from before */
    u32 at;    /* bytes of the image done */
    u32 said;  /* of them, told to progress */
    u32 crc;
    sd_match now;
    u32 unit;
    u8 deltas[4], field_hits[64];
    u32 hist, last_miss;
    sd_made *made;
    int (*progress)(void *, u32, u32);
    void *user;
} sd_walk;

#define SD_STATE 3584 /* what a walk takes at most, on every platform: part of the format's sums */
_Static_assert(sizeof(sd_walk) + 16 <= SD_STATE, "the walk outgrew its budget");

/* header.c */
int sd_header_write(const sd_header *h, u8 *out);
/* layout.c */
u32 sd_memory_needed(const sd_header *h);
u32 sd_most_matches(const sd_header *h);
int sd_layout(sd_walk *w, void *memory, size_t size);

/* script.c: numbers are the count of bits in unary, then the bits; the first two and the count have counters */
u32 sd_number(sd_walk *w, int kind, u32 v);
u32 sd_zigzag(i64 v);
i64 sd_zagzig(u32 z);
int sd_code_match(sd_walk *w, int kind, u32 at, u32 from, u32 end, sd_match *m);
int sd_read_script(sd_walk *w);
sd_match sd_match_of(const sd_walk *w, u32 k);
u32 sd_match_field(const sd_walk *w, u32 k, u32 which); /* of the k-th kept match: 0 at, 1 from, 2 length */
u32 sd_order(const sd_walk *w, u32 k);                  /* the k-th in the base's order */

/* address.c */
typedef struct {
    u8 bytes[8]; /* as it must read */
    u8 len, done, type;
    sd_wide old_target, target, pc;
    const sd_form *form;
} sd_field;
void sd_find_field(const sd_walk *w, u32 j, u32 i, u32 left, int unit, sd_field *f);
void sd_learn_field(sd_walk *w, const sd_field *f);
sd_gap sd_offset(const sd_segment *s, u32 n, sd_wide va); /* -1: in none */
sd_wide sd_address(const sd_segment *s, u32 n, u32 off);
int sd_esp_segments(const u8 *image, u32 size, sd_segment *out, u32 *n);

/* output.c */
void sd_emit(sd_walk *w, u8 byte);
void sd_emit_many(sd_walk *w, const u8 *from, u32 n);
void sd_flush(sd_walk *w);
u32 sd_tail32(const sd_walk *w); /* the last four bytes, the last one on top */
/* Encoder: the byte that comes next; whether the image goes on like this. */
static inline u8 sd_wanted(const sd_walk *w) { return SD_MAKES(w->target) ? w->target[w->at] : 0; }
static inline int sd_goes_on(const sd_walk *w, const u8 *as, u32 n) { return SD_MAKES(w->target && !memcmp(as, w->target + w->at, n)); }
u32 sd_seen_key(const sd_walk *w, const u8 *p5);
int sd_seen_byte(const sd_walk *w, sd_wide at, u8 *byte);
void sd_seen_put(sd_walk *w);

/* extra.c, covered.c, patch.c */
void sd_prime(sd_walk *w);
void sd_extra(sd_walk *w, u32 end, u32 old_before, sd_gap old_shift);
void sd_covered(sd_walk *w);
int sd_run(sd_walk *w, const sd_match *script); /* script: encoder */

/* --- hosts ------------------------------------------------------------------------------------------- */
int sd_blank(int arch, const u8 *p, u32 size, const sd_segment *s, u32 n, u8 *out, u8 *named);
int sd_detect(const u8 *image, u32 size);
void sd_segments(int arch, const u8 *image, u32 size, sd_segment *out, u32 *n);
/* `names`: 0, pointers look all alike; else by name, and matches that save less than so many bytes left out. */
int sd_matches(int arch, const u8 *old, u32 on, const sd_segment *so, u32 nso, const u8 *new_, u32 nn,
               const sd_segment *sn, u32 nsn, u32 most, int names, sd_match **out, u32 *count, u32 *kept,
               const sd_wish *wish);
#endif
