/* BTF, the kernel's description of its own types, with its numbers made into names.
 *
 * Types refer to each other by number and to their names by offset; compilers on many cores write them in another order
 * every time, so that nearly every number changes though nearly no type does. Opened, a reference is the hash of what it
 * refers to, in place, without a byte more or less: two kernels' types then read alike, wherever they stand. What cannot be
 * told by its hash alone (another type hashes alike, a number of nothing) stays a number. All other words are turned so that
 * no machine's decoder takes them for an address. Closing undoes it: hashes are reckoned from the opened words alone. */
#include "btf.h"
#include "decoder/core.h"
#include <stdlib.h>

enum { HEAD = 24, MOST = 16 << 20, MOST_OF_EACH = 1 << 18, DEEP = 64, TRIES = 64 }; /* bytes; types, and names */
#define MARK 0xAC000000u /* no instruction, no address, and no number of a type, on any machine */
#define FREE 0x43FFFFFFu /* bits of a hash; the others are MARK's */

/* What a record is made of: its third word, the words that follow, and how often: as told by the record, or once. */
enum { OTHER, NAME, TYPE };
typedef struct {
    u8 third, each, told, word[3];
} shape;
static const shape shapes[20] = {
    [1] = {OTHER, 1, 0, {OTHER}},                  /* int */
    [2] = {TYPE, 0, 0, {0}},                       /* pointer */
    [3] = {OTHER, 3, 0, {TYPE, TYPE, OTHER}},      /* array */
    [4] = {OTHER, 3, 1, {NAME, TYPE, OTHER}},      /* struct */
    [5] = {OTHER, 3, 1, {NAME, TYPE, OTHER}},      /* union */
    [6] = {OTHER, 2, 1, {NAME, OTHER}},            /* enum */
    [7] = {OTHER, 0, 0, {0}},                      /* forward */
    [8] = {TYPE, 0, 0, {0}},                       /* typedef */
    [9] = {TYPE, 0, 0, {0}},                       /* volatile */
    [10] = {TYPE, 0, 0, {0}},                      /* const */
    [11] = {TYPE, 0, 0, {0}},                      /* restrict */
    [12] = {TYPE, 0, 0, {0}},                      /* function */
    [13] = {TYPE, 2, 1, {NAME, TYPE}},             /* prototype */
    [14] = {TYPE, 1, 0, {OTHER}},                  /* variable */
    [15] = {OTHER, 3, 1, {TYPE, OTHER, OTHER}},    /* section */
    [16] = {OTHER, 0, 0, {0}},                     /* float */
    [17] = {TYPE, 1, 0, {OTHER}},                  /* declaration's tag */
    [18] = {TYPE, 0, 0, {0}},                      /* type's tag */
    [19] = {OTHER, 3, 1, {NAME, OTHER, OTHER}},    /* enum of 64 bits */
};

/* What has a hash: the first that has it. */
typedef struct {
    u32 hash, what; /* what: 0, nobody has */
} entry;
typedef struct {
    entry *e;
    u32 bits; /* 2^bits entries */
} table;
typedef struct {
    u8 *words;          /* the records */
    const u8 *names;
    u32 size, name_size; /* bytes */
    int closing;        /* the words are opened ones */
    u32 *at, *hash, n;  /* records: where, and their hashes (0: not reckoned yet); the first is number 1 */
    table types, texts; /* records by their numbers, names by their places */
} types;

static void put(u8 *p, u32 v)
{
    for (int k = 0; k < 4; k++)
        p[k] = (u8)(v >> 8 * k);
}
static u32 marked(u32 h) { return (h & FREE) | MARK; }
static int is_hash(u32 w) { return (w & ~FREE) == MARK; }
static u32 word(const types *t, u32 at) { return sd_l32(t->words + at); }
static u32 plain(const types *t, u32 at) { return word(t, at) ^ (t->closing ? MARK : 0); } /* one that refers to nothing */

/* --- records ---------------------------------------------------------------------------------------------------- */
static u32 length(const types *t, u32 at, const shape **s) /* bytes; 0: no record */
{
    if (t->size - at < 12)
        return 0;
    u32 info = plain(t, at + 4), kind = info >> 24 & 31;
    if (!kind || kind >= sizeof shapes / sizeof *shapes)
        return 0;
    *s = shapes + kind;
    u32 n = 12 + (*s)->each * ((*s)->told ? info & 0xFFFF : 1) * 4;
    return n <= t->size - at ? n : 0;
}
/* What the k-th word of a record is. */
static int role(const shape *s, u32 k) { return k == 0 ? NAME : k == 1 ? OTHER : k == 2 ? s->third : s->word[(k - 3) % s->each]; }

static int count(types *t, u32 *at)
{
    const shape *s;
    t->n = 0;
    for (u32 p = 0, n; p < t->size; p += n) {
        if (!(n = length(t, p, &s)))
            return 0;
        if (at)
            at[t->n] = p;
        t->n++;
    }
    return t->n != 0;
}

/* --- hashes, and who has them ------------------------------------------------------------------------------------ */
static int room(table *t, u32 n)
{
    for (t->bits = 4; 1u << t->bits < n * 2; t->bits++)
        ;
    return (t->e = calloc((size_t)1 << t->bits, sizeof *t->e)) != 0;
}
/* Where a hash is, or would be; none where too many are in the way: that, too, is alike on both sides. */
static entry *place(const table *t, u32 h)
{
    u32 k = (h * 0x9E3779B1u) >> (32 - t->bits);
    for (int tries = 0; tries < TRIES; tries++, k = (k + 1) & ((1u << t->bits) - 1))
        if (!t->e[k].what || t->e[k].hash == h)
            return t->e + k;
    return 0;
}
static void learn(table *t, u32 h, u32 what)
{
    entry *e = place(t, h);
    if (e && !e->what)
        *e = (entry){h, what};
}
static u32 who(const table *t, u32 h) /* 0: nobody */
{
    const entry *e = place(t, h);
    return e ? e->what : 0;
}

/* --- names -------------------------------------------------------------------------------------------------------- */
static u32 text_hash(const u8 *p)
{
    u32 h = 0x7E57;
    for (; *p; p++)
        h = (h ^ *p) * 0x01000193u;
    return marked(sd_mix(h, 0x7E57));
}
static int begins(const types *t, u32 p) { return p && p < t->name_size && !t->names[p - 1] && t->names[p]; }
/* The name's word as it is when opened. */
static u32 name_opened(const types *t, u32 w)
{
    if (t->closing || !begins(t, w))
        return w;
    u32 h = text_hash(t->names + w);
    return who(&t->texts, h) == w ? h : w;
}

/* --- hashes of records ----------------------------------------------------------------------------------------------- */
static u32 hash_of(types *t, u32 number, int deep); /* 0: too deep */

/* What a reference adds to the hash of who refers. */
static u32 reference(types *t, u32 w, int deep)
{
    return is_hash(w) && t->closing ? w : w && w <= t->n ? hash_of(t, w, deep + 1) : w;
}
/* Of all its words but references; of these too, where a record has no name. What has none refers, by and by, to what has. */
static u32 hash_of(types *t, u32 number, int deep)
{
    u32 *known = t->hash + number - 1, at = t->at[number - 1], h = 0xB7F;
    const shape *s;
    if (*known || deep > DEEP)
        return *known;
    u32 words = length(t, at, &s) / 4, named = name_opened(t, word(t, at));
    for (u32 k = 0; k < words; k++) {
        int what = role(s, k);
        if (what == TYPE && named)
            continue;
        u32 w = what == NAME ? name_opened(t, word(t, at + k * 4)) : what == OTHER ? plain(t, at + k * 4) : reference(t, word(t, at + k * 4), deep);
        h = sd_mix(h, w);
    }
    return *known = marked(h);
}

static int ready(types *t, u8 *p, u32 n, int closing)
{
    memset(t, 0, sizeof *t);
    if (n < HEAD + 12 || n > MOST || sd_l32(p) != 0x0001EB9F || sd_l32(p + 4) != HEAD || sd_l32(p + 8))
        return SD_BAD_PATCH;
    t->size = sd_l32(p + 12);
    t->name_size = sd_l32(p + 20);
    if (t->size & 3 || sd_l32(p + 16) != t->size || t->size > n - HEAD || t->name_size != n - HEAD - t->size || !t->name_size ||
        p[HEAD + t->size] || p[n - 1])
        return SD_BAD_PATCH;
    t->words = p + HEAD;
    t->names = t->words + t->size;
    t->closing = closing;
    if (!count(t, 0))
        return SD_BAD_PATCH;
    u32 texts = 0;
    for (u32 k = 1; k < t->name_size; k++)
        texts += (u32)begins(t, k);
    if (t->n > MOST_OF_EACH || texts > MOST_OF_EACH)
        return SD_BAD_PATCH;
    t->at = malloc(t->n * sizeof(u32));
    t->hash = calloc(t->n, sizeof(u32));
    if (!room(&t->types, t->n) || !room(&t->texts, texts) || !t->at || !t->hash)
        return SD_MEMORY;
    count(t, t->at);
    for (u32 k = 1; k < t->name_size; k++)
        if (begins(t, k))
            learn(&t->texts, text_hash(t->names + k), k);
    for (u32 k = 1; k <= t->n; k++)
        learn(&t->types, hash_of(t, k, 0), k);
    return SD_OK;
}
/* A word as it is on the other side; `bad` is set for a hash of nothing. */
static u32 turned(types *t, int what, u32 w, int *bad)
{
    if (what == OTHER)
        return w ^ MARK;
    if (!t->closing) {
        *bad |= is_hash(w);
        if (what == NAME)
            return name_opened(t, w);
        return w && w <= t->n && who(&t->types, t->hash[w - 1]) == w ? t->hash[w - 1] : w;
    }
    if (!is_hash(w))
        return w;
    u32 found = who(what == NAME ? &t->texts : &t->types, w);
    *bad |= !found;
    return found;
}
static int turn(u8 *p, u32 n, int closing)
{
    types t;
    int bad = ready(&t, p, n, closing), odd = 0;
    for (u32 k = 0; k < t.n && !bad; k++) {
        const shape *s;
        u32 words = length(&t, t.at[k], &s) / 4;
        for (u32 b = 0; b < words; b++)
            put(t.words + t.at[k] + b * 4, turned(&t, role(s, b), word(&t, t.at[k] + b * 4), &odd));
    }
    free(t.at);
    free(t.hash);
    free(t.types.e);
    free(t.texts.e);
    return bad ? bad : odd ? SD_BAD_PATCH : SD_OK;
}
int sd_btf_open(uint8_t *p, uint32_t n) { return turn(p, n, 0); }
int sd_btf_close(uint8_t *p, uint32_t n) { return turn(p, n, 1); }
